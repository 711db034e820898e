"""What speaks for a drift, in sentences for people."""

from __future__ import annotations

import math


def level(before: float, log_ratio: float) -> str:
    """The mean rate was ``before``, above 0, and went up or down by ``log_ratio``."""
    ratio = math.exp(log_ratio)
    change = f"{math.expm1(log_ratio):+.0%}" if ratio < 100.0 else f"{ratio:.3g} times as much"
    return f"the mean over the day went from {before:.4g} to {before * ratio:.4g} ({change}) and stays there"


def season(rank: float, usual: float) -> str:
    """The newest day correlates by ``rank`` with the reference, where others did by ``usual``."""
    return f"the day has another shape: its correlation with the usual day is {rank:.2f}, not {usual:.2f}"


def moved(hours: float, rank: float) -> str:
    """What the correlation would be if the day had not moved by ``hours`` (later where positive)."""
    return f"; moved {abs(hours):.3g} h {'later' if hours > 0 else 'earlier'} it would be {rank:.2f}"


def variance(log_ratio: float) -> str:
    """The noise went up or down by ``log_ratio``."""
    return f"values vary {math.exp(log_ratio):.2g} times as much from step to step as before, around the same day"


def hole(share: float, usual: float, hours: float) -> str:
    """``share`` of the values of the last ``hours`` are missing, where ``usual`` is usual."""
    return f"{share:.0%} of the values of the last {hours:.3g} h are missing or 0; usually it is {usual:.0%}"


def skill(skill: float) -> str:
    """Forecasts lose to the baseline."""
    return f"forecasts lose more than the baseline (skill {skill:.2f}), and nothing in the data explains it"


def coverage(share: float, nominal: float) -> str:
    """``share`` of the values fall where ``nominal`` should."""
    return f"{share:.0%} of the values fall into an interval for {nominal:.0%}"
