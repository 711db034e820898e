"""The exception tree of the library.

ForecastingError
├── ArtifactError   a stored model is missing, damaged or of another format
├── HorizonError    a forecast reaches further than the model was trained for
├── LeakError       a fit or a forecast depends on values that come after its origin
├── QuantileError   a quantile that the forecast does not hold
└── TrainingError   nothing to train on
"""

from __future__ import annotations


class ForecastingError(Exception):
    """Root of everything that this library raises on purpose."""


class ArtifactError(ForecastingError):
    """A stored model cannot be used. The remedy is always to train again; the message names the file."""


class HorizonError(ForecastingError):
    """More steps were asked for than the model can see."""


class LeakError(ForecastingError):
    """A forecast changed when only values after its origin changed."""


class QuantileError(ForecastingError):
    """The quantile is not one of those that were forecast."""


class TrainingError(ForecastingError):
    """The series hold no window that a model could learn from."""
