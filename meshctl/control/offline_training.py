"""Training in the foreground, without a control plane: from what a state directory holds, into its registry."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forecasting.bundle import Progress
from forecasting.errors import ForecastingError
from forecasting.series import Series
from meshctl import config as config_module
from meshctl.config import MeshConfig
from meshctl.control import training
from meshctl.control.past import TRAINABLE, Past
from meshctl.control.retraining import order_of, registry_of
from meshctl.errors import MeshctlError, UsageError
from meshctl.history.database import Database


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to learn from. ``seeded``: it is the recorded trace that the mesh file names."""

    config: MeshConfig
    series: Sequence[Series]
    seeded: bool

    @property
    def text(self) -> str:
        """One line."""
        steps, names = sum(len(one.values) for one in self.series), ", ".join(one.name for one in self.series)
        return f"{steps} steps of {len(self.series)} series ({names}){' of the seed trace' if self.seeded else ''}"


def material(file: Path) -> Material:
    """The training series of a mesh file. Raises UsageError where none is long enough."""
    config = config_module.load(file)
    state = config.controller.state_dir
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = time.time()
    with Database.open(state / "history.db") as database:
        past = Past(config, database)
        past.restore(now)
    series = past.training_series(now)
    if not series:
        raise UsageError(
            f"{state / 'history.db'}: {past.longest()} steps of history, {TRAINABLE} are needed to train; let the "
            "control plane run for longer, or name a recorded trace in forecast.history"
        )
    return Material(config, series, past.seeded)


def train(wanted: Material, seconds: float | None, progress: Progress) -> tuple[str, bool]:
    """Train, keep, and promote what wins: a line about it, and whether it was promoted. Raises MeshctlError."""
    config, now = wanted.config, time.time()
    order = order_of(config, "asked for on the command line", now, seeded=wanted.seeded)
    budget = seconds or config.forecast.train_seconds or order.settings.seconds
    order = replace(order, settings=replace(order.settings, seconds=budget))
    registry = registry_of(config)
    try:
        number = training.learn(wanted.series, order, progress, time.process_time)
        text, swap = training.judge(registry, number, config.forecast.retrain.margin, now)
        registry.prune(config.forecast.retrain.keep)
    except ForecastingError as error:
        raise MeshctlError(f"no models were trained: {error}") from error
    return text, swap is not None
