"""The models, one file each, and ``MODELS``: those that need no training, by name.

Each is imported when it is made, so that nobody waits for a library that is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from forecasting.base import Forecaster


def _lazy(module: str, factory: str, *arguments: int | str) -> Callable[[], Forecaster]:
    def make() -> Forecaster:
        model: Forecaster = getattr(import_module(f"{__name__}.{module}"), factory)(*arguments)
        return model

    return make


MODELS: dict[str, Callable[[], Forecaster]] = {
    "last": _lazy("naive", "LastValue"),
    "ewma": _lazy("statistical", "Ewma"),
    "median12": _lazy("recent", "RecentMedian", 12),
    "median48": _lazy("recent", "RecentMedian", 48),
    "seasonal_naive": _lazy("naive", "SeasonalNaive"),
    "profile1": _lazy("profile", "named", "profile1"),
    "profile3": _lazy("profile", "named", "profile3"),
    "profile7": _lazy("profile", "named", "profile7"),
    "ets": _lazy("exponential", "Ets"),
    "theta": _lazy("theta", "Theta"),
    "sarimax": _lazy("sarimax", "Sarimax"),
    "prophet": _lazy("prophet", "Prophet"),
}
"""Name to a function that makes the model. A name is what ``Forecaster.name`` says, in commands and results."""
