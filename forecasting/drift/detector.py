"""All tests of one series, in order of how much each explains."""

from __future__ import annotations

from forecasting.drift.causes import Drift
from forecasting.drift.changes import Hole, Level, Season, Variance
from forecasting.drift.day import Day
from forecasting.drift.readings import Readings
from forecasting.drift.references import DriftError, Reference
from forecasting.series import FloatArray, Series


class Detector:
    """Watches one series. It keeps one day of blocks and the values of the open block: a few kilobytes.

    One shift gives one report: after it, the detector is quiet for a day, measures level and variance from where they
    are now, and reports a hole, a season, a skill or a coverage again only when it had recovered in between. Skill
    and coverage are reported only while no cause was found in the data; a new model means a new reference and a new
    detector.
    """

    __slots__ = ("_day", "_hole", "_level", "_named", "_quiet", "_readings", "_season", "_variance", "reference")

    def __init__(self, reference: Reference, nominal: float = 0.9) -> None:
        """``nominal`` is what the coverage that ``observe`` is told should be (0.9: of the 5 % to 95 % interval)."""
        self.reference, self._day = reference, Day(reference)
        self._hole, self._season = Hole(self._day), Season(self._day)
        self._level, self._variance = Level(self._day), Variance(self._day)
        self._readings = Readings(reference, nominal)
        self._quiet = -1  # no report before this block
        self._named = False  # whether the data ever explained anything

    def observe(self, newest: Series, skill: float | None = None, coverage: float | None = None) -> Drift | None:
        """Take in what is new in ``newest`` (a whole history or its end: what was seen before is skipped, what lies
        between is missing), and the newest readings, where there are any.

        ``skill`` is 1 - loss / loss of the baseline, ``coverage`` the share of values that fell into their interval.
        Tell at most a day at a time: of several shifts in one call the first is returned. Raises DriftError for another
        series, step or season.
        """
        self._check(newest)
        found: Drift | None = None
        for number, values in self._day.complete(newest):
            drift = self._block(number, values)
            found = found or drift
        return found or self._readings.test(newest.end, skill, coverage, self._named)

    def _check(self, newest: Series) -> None:
        told, kept = (newest.name, newest.step, newest.season), self.reference
        if told != (kept.series, kept.step, kept.season):
            raise DriftError(
                f"{newest.name}: step {newest.step:g} s, season {newest.season} against the reference of "
                f"{kept.series}: step {kept.step:g} s, season {kept.season}; make a new reference"
            )

    def _block(self, number: int, values: FloatArray) -> Drift | None:
        """Block ``number`` has ended: take it in, and ask; after a report, be quiet for a day."""
        self._day.store(number, values)
        drift = self._asked(number, number < self._quiet)
        if drift is not None:
            self._quiet, self._named = number + len(self._day), True
        return drift

    def _asked(self, number: int, quiet: bool) -> Drift | None:
        """The first cause that is found; those behind it are not asked about this block."""
        hole = self._hole.test(number, quiet)
        if hole is not None:
            for suspicion in (self._level, self._season, self._variance):
                suspicion.forget()
            return hole
        if self._hole.active or not self._day.hears(number):
            return None
        if not self._season.active:
            self._level.accumulate(number)
        season = self._season.test(number, quiet)
        if season is not None:
            self._level.forget()
            return season
        return self._level.test(number, quiet, self._season.doubted) or self._variance.test(number, quiet)
