"""Intervals against published figures, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from chaos.proportions import difference, wilson


@pytest.mark.parametrize(
    ("bad", "requests", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_newcombe_printed_it(bad: int, requests: int, low: float, high: float) -> None:
    """Newcombe 1998 (single proportion), table I, method 3."""
    assert wilson(bad, requests) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((10, 10, 0, 20), 0.6791, 1.0)],
)
def test_differences_as_newcombe_printed_them(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    """Newcombe 1998 (two proportions), table II, method 10."""
    assert difference(*counts) == pytest.approx((low, high), abs=6e-5)


def test_no_requests_say_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert difference(0, 0, 1, 10) == (-1.0, 1.0)


@pytest.mark.parametrize("ratio", [0.005, 0.02, 0.2])
def test_the_difference_of_equal_arms_covers_zero(ratio: float) -> None:
    generator = np.random.default_rng(1)
    pairs = generator.binomial(400, ratio, size=(2000, 2))
    covered = sum(low <= 0 <= high for low, high in (difference(int(a), 400, int(b), 400) for a, b in pairs))
    assert covered / 2000 >= 0.945
