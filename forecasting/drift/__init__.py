"""Drift of a series, named by its cause: what changed against the time that the models were trained on.

"The error went up" does not say what to do. A new level or a shifted day asks for training again, a hole in the
telemetry asks for the telemetry to be repaired (and for no training). Each series is compared with a ``Reference``
kept from training time (``references``), in blocks of a 24th to a 48th of a day (``day``):

- level: a two-sided CUSUM (Page, Biometrika 41, 1954) of clipped, robustly standardised block means, in Hinkley's form
  that also estimates the onset (Biometrika 58, 1971); a suspicion is named after a day, if it holds all day long,
- season: the rank correlation of the newest day with the reference day stays low; the best circular shift says by how
  much it moved,
- variance: the log ratio of the median absolute successive difference (von Neumann, Annals of Mathematical Statistics
  12, 1941), which neither levels nor days disturb,
- telemetry hole: the share of values missing in the newest quarter of a day,
- skill, coverage: readings that stay on the wrong side of a line, while nothing in the data explains it.

Each cause has its test (``tests``), its sentence (``evidence``) and its place in the order in which a ``Detector``
asks (``detector``). Everything happens on square roots of rates: counting noise is as wide there at any level
(Anscombe, Biometrika 35, 1948), and a burst weighs less.
"""

from forecasting.drift.causes import Cause, Drift
from forecasting.drift.detector import Detector
from forecasting.drift.references import DriftError, Reference, reference

__all__ = ["Cause", "Detector", "Drift", "DriftError", "Reference", "reference"]
