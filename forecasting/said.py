"""What is said at an origin, and how it is kept until reality comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.conformal import U
from forecasting.series import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What is said at an origin about the next H intervals, or, looked up, what the H newest origins said about one.

    ``told (N, M, H)``: the models' medians; ``mixed (N, H)`` their mixture; ``unit (N, H)`` the size of a usual error
    lately.
    ``spread (N, K, H, U)``: the quantiles that compete; ``blend (N, H, U)`` their mixture; ``calibrated (N, H, U)``
    that, moved, not yet in order; ``peaks (N, H, U)`` those of maxima, moved, not yet in order.
    """

    told: FloatArray
    mixed: FloatArray
    unit: FloatArray
    spread: FloatArray
    blend: FloatArray
    calibrated: FloatArray
    peaks: FloatArray

    @staticmethod
    def width(models: int) -> int:
        """Figures per step when packed, the spread apart."""
        return models + 2 + 3 * U

    def packed(self) -> FloatArray:
        """All but the spread as one array ``(N, H, width)``: a single look-up finds all of it."""
        single = (self.mixed[..., None], self.unit[..., None])
        parts = [np.moveaxis(self.told, 1, 2), *single, self.blend, self.calibrated, self.peaks]
        return np.concatenate(parts, axis=2)

    @classmethod
    def unpacked(cls, table: FloatArray, spread: FloatArray) -> Said:
        """The inverse of ``packed``; ``spread (N, H, K, U)`` by step, of any size of float."""
        models = table.shape[2] - cls.width(0)
        edges = [models, models + 1, *(models + 2 + U * np.arange(3))]
        told, mixed, unit, *beside = np.split(table, edges, axis=2)
        told = np.ascontiguousarray(np.moveaxis(told, 2, 1))
        spreads = np.ascontiguousarray(np.moveaxis(spread, 1, 2), dtype=np.float64)
        return cls(told, mixed[..., 0], unit[..., 0], spreads, *beside)
