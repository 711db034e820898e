"""What is said about a series in its first minutes is modest: nobody has seen yet how far it strays."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.ensemble import Selector
from forecasting.models import MODELS
from forecasting.series import Series


@pytest.mark.parametrize("seed", range(10))
def test_no_quantile_of_a_young_series_is_beyond_reason(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([np.linspace(0.5, 4.0, 8), rng.poisson(8, 40) / 2.0])
    selector = Selector([MODELS["ewma"](), MODELS["seasonal_naive"]()], 12)
    for count in range(1, len(values) + 1):
        (told,) = selector.update([Series("young", 1e6, 2.0, values[:count], 720)])
        highest = max(told.forecast.values.max(), told.peaks.max())
        assert highest <= 12 * values[:count].max()
