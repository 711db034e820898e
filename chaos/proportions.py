"""Confidence intervals for shares of bad responses (pure).

Wilson's score interval and Newcombe's interval for a difference keep their coverage where errors are few, which is
where the textbook interval is worst (R. G. Newcombe, Statistics in Medicine 17, 1998, methods 3 of the single and 10
of the two samples).
"""

from __future__ import annotations

from math import sqrt

#: Standard normal quantile of a two-sided 95 % interval.
Z95 = 1.959964


def wilson(bad: int, requests: int, z: float = Z95) -> tuple[float, float]:
    """The interval of ``bad / requests``; all of 0 to 1 where there were no requests."""
    if requests <= 0:
        return 0.0, 1.0
    ratio, square = bad / requests, z * z / requests
    middle = (ratio + square / 2) / (1 + square)
    half = z / (1 + square) * sqrt(ratio * (1 - ratio) / requests + square / (4 * requests))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(bad: int, requests: int, control_bad: int, control_requests: int, z: float = Z95) -> tuple[float, float]:
    """The interval of treatment minus control; -1 to 1 where an arm had no requests."""
    if requests <= 0 or control_requests <= 0:
        return -1.0, 1.0
    ratio, control = bad / requests, control_bad / control_requests
    low, high = wilson(bad, requests, z)
    control_low, control_high = wilson(control_bad, control_requests, z)
    gap = ratio - control
    lower = gap - sqrt((ratio - low) ** 2 + (control_high - control) ** 2)
    return lower, gap + sqrt((high - ratio) ** 2 + (control - control_low) ** 2)
