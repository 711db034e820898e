"""The mixture's settings, chosen by leaving one series out: no file is tuned to.

For each series the settings are taken that do best on all others (geometric mean of the relative WAPE over series and
steps), and the series is scored with those. If that is about as good as the settings that are built in, they do not owe
their figures to the series they were chosen on.

    python -m benchmarks.forecast_table --data ../shared/data --save answers.npz
    python -m benchmarks.forecast_choice --data ../shared/data --answers answers.npz --json choice.json
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.forecast_table import STEPS, Told, errors, load, mixed, read, start
from forecasting import mixture
from forecasting.ensemble import LEAST_SHARE
from forecasting.series import FloatArray, Series

LEAST_SHARES = (1.0, LEAST_SHARE)
LIMITS = (2.0, mixture.LIMIT, 20.0)
LEARNED_SHARES = (1.0, 3.0)
"""What the trained models count at first, as a multiple of the others."""

LEARNED = ("linear", "boosting", "lstm")
Setting = tuple[float, float, float]
BUILT_IN: Setting = (LEAST_SHARE, mixture.LIMIT, 1.0)


def scores(series: Sequence[Series], told: Mapping[str, Told]) -> dict[Setting, FloatArray]:
    """Relative WAPE ``(series, steps)`` under every setting."""
    found = {}
    for setting in itertools.product(LEAST_SHARES, LIMITS, LEARNED_SHARES):
        least, mixture.LIMIT, learned = setting
        shares = start(told, least) * np.array([learned if name in LEARNED else 1.0 for name in told])
        medians = mixed(series, told, shares)
        found[setting] = np.array([[errors(one, medians[one.name])[h] for h in STEPS] for one in series])
        print(f"last {least:4} limit {mixture.LIMIT:4} learned {learned:3}", mean(found[setting]), flush=True)
    return found


def mean(rows: FloatArray) -> FloatArray:
    """Geometric mean over series, per step."""
    return np.asarray(np.exp(np.log(rows).mean(axis=0)).round(4))


def left_out(found: Mapping[Setting, FloatArray], row: int) -> Setting:
    """The setting that does best on all series but one."""
    return min(found, key=lambda setting: float(np.log(np.delete(found[setting], row, axis=0)).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    series, told = read(args.data), load(args.answers)
    found = scores(series, told)
    chosen = [left_out(found, row) for row in range(len(series))]
    held = np.array([found[setting][row] for row, setting in enumerate(chosen)])
    for one, setting, row in zip(series, chosen, held, strict=True):
        print(f"{one.name:24} chosen by the others: {setting!s:18}", row.round(3))
    print("left out ", mean(held))
    print("built in ", mean(found[BUILT_IN]))
    if args.json:
        result = {"left_out": mean(held).tolist(), "built_in": mean(found[BUILT_IN]).tolist(), "chosen": chosen}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
