"""The exception tree of the library. What any module may raise is defined here, the rest where it is raised.

ForecastingError
├── ArtifactError         a stored model is missing, damaged or of another format
├── CalendarError         covariates that do not fit together (calendar)
│   └── SettingError        a country or a time zone that nobody knows (calendar)
├── CovariateError        covariates that do not fit to the series (models.sarimax)
├── DriftError            a reference that cannot be taken, or is of another series (drift)
├── DuplicateSeriesError  a name is given to two series of one update (ensemble)
├── EngineError           an engine does not start, or lost a process (engines)
│   └── MissingEngineError  its library is not installed (engines)
├── GraphError            calls that cannot be measured against their parent's requests (graph)
├── HorizonError          a forecast reaches further than the model was trained for
├── LeakError             a fit or a forecast depends on values that come after its origin
├── MissingPackageError   a model's optional package is not installed (models.prophet)
├── QuantileError         a quantile that the forecast does not hold
├── RegistryError         the champion cannot be changed as asked, or the folder not written (registry)
├── ReportError           a stored result of a backtest cannot be read (evaluate.report)
├── ResolutionError       steps or grids that do not fit together (resolutions)
├── TrainingError         nothing to train on
└── UnknownModelError     no model has this name (evaluate.contest)

Whoever calls the library turns them into answers of its own: on meshctl's command line a missing package and an unknown
model are usage errors (exit code 2), all others internal ones (70).
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
