"""Which learned models forecast, and when others are trained: champion and challenger.

At start the champion of the registry is taken. New models are trained in a process of their own, within a budget
(:mod:`meshctl.control.governor`): first of all, then every so often, and when a series has drifted. The result is the
challenger; it takes over only if it forecasts the newest past better by a margin. Everything is journaled, and every
swap can be undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forecasting.bundle import BundleSettings, restored
from forecasting.drift import Drift
from forecasting.errors import ArtifactError, ForecastingError
from forecasting.registry import Champion, Registry, Swap
from forecasting.series import Series
from meshctl.config import MeshConfig
from meshctl.control import training
from meshctl.control.forecasts import Forecasts
from meshctl.control.governor import Budget, Governed, TrainingFailedError
from meshctl.control.journal import Journal
from meshctl.control.past import TRAINABLE
from meshctl.control.watch import stored_references

HOLDOUT = BundleSettings().holdout
"""The newest share of a series that a training must not learn from."""

_SPARE = 5
"""Steps by which the estimated onset of a drift may be wrong."""

MOST_TRIES = 5
"""Trainings for one drift; then the schedule's must do."""

HOLE = "telemetry hole"
"""The cause of drift that asks for repair, not for training."""

_ROUND = 1.0
"""Seconds between two looks at what there is to do."""

_RETRY = 30.0
"""Seconds between two looks whether there is enough history by now."""

_PATIENCE, _GRACE, _EACH = 5.0, 120.0, 2.0
"""A training that takes so many times its budget, so many seconds more, and so many per series is ended: imports,
linear models and scores cost extra."""

State = Literal["none", "loading", "training", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class ModelState:
    """Where the learned models stand."""

    state: State
    detail: str
    cached: bool = False
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A training that is wanted, and why."""

    kind: Literal["first", "schedule", "drift"]
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides on the next training: when the last one was tried (seconds since the epoch; None: none was), the
    drift that waits for one, from when on enough has come since to learn from it, and how many trainings for it
    brought nothing better.
    """

    last: float | None
    drift: Drift | None
    champion: bool
    enough_at: float = 0.0
    tries: int = 0


def due(now: float, state: Standing, every: float, pause: float) -> Due | None:
    """Whether to train now. Between two trainings lies at least ``pause``, whatever the reason; for the same drift
    twice as long each time, because what came after it is what there is to learn from.
    """
    if state.last is not None and now - state.last < pause:
        return None
    if not state.champion:
        return Due("first", "there are no learned models")
    waited = state.last is None or now - state.last >= pause * 2**state.tries
    if state.drift is not None and waited and now >= state.enough_at:
        return Due("drift", f"drift of {state.drift.series} ({state.drift.cause})")
    if state.last is None or now - state.last >= every:
        return Due("schedule", "forecast.retrain.every has passed")
    return None


def registry_of(config: MeshConfig) -> Registry:
    """Where the generations of a mesh are kept."""
    return Registry(config.controller.state_dir / "models")


def cache_of(config: MeshConfig) -> Path:
    """Where models of a recorded past outlive a state directory."""
    return config.forecast.cache_dir or config.controller.state_dir / "models"


def order_of(config: MeshConfig, reason: str, now: float, *, seeded: bool, holdout: float = HOLDOUT) -> training.Order:
    """What a training of this mesh is told. ``holdout``: the newest share that it must not learn from."""
    return training.Order(
        settings=BundleSettings(config.forecast.train_seconds, horizon=config.forecast.horizon, holdout=holdout),
        registry=registry_of(config).folder,
        reason=reason,
        now=now,
        seeded=seeded,
        cache=cache_of(config) if seeded else None,
    )


class Retrainer:
    """Keeps the models of one mesh up to date. ``run`` once; everything else may be called meanwhile."""

    def __init__(
        self,
        config: MeshConfig,
        forecasts: Forecasts,
        journal: Journal,
        clock: Callable[[], float] = time.time,
        command: Sequence[str] = (sys.executable, "-m", "meshctl.control.trainer"),
    ) -> None:
        self.model = ModelState("loading", "not begun")
        self.registry = registry_of(config)
        self.governed: Governed | None = None
        self._config = config
        self._retrain = config.forecast.retrain
        self._forecasts = forecasts
        self._journal = journal
        self._clock = clock
        self._command = tuple(command)
        self._budget = Budget(self._retrain.cpu_share, 60.0 * self._retrain.minutes_per_hour)
        self._last: float | None = None
        self._retry = 0.0
        self._drift: Drift | None = None
        self._tries = 0
        self._seen: int | None = None  # the champion that was looked at last, whether it could be used or not
        self._changing = asyncio.Lock()

    # -- the rhythm ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up what is stored, then look every second whether to train."""
        await self.prepare(self._clock())
        while self._config.forecast.train_seconds > 0:
            await self.look(self._clock())
            await asyncio.sleep(_ROUND)

    async def prepare(self, now: float) -> None:
        """Take up the stored history (or read the seed trace) and the champion."""
        await asyncio.to_thread(self._forecasts.past.restore, now)
        if self._config.forecast.train_seconds == 0:
            self.model = ModelState("none", "forecast.train_seconds is 0: no learned model")
            return
        self.model = ModelState("none", "no learned models yet")
        await self._take()
        self._last = await asyncio.to_thread(_last_training, self.registry)

    async def look(self, now: float) -> None:
        """One round: follow a champion that somebody else promoted, then train if that is due."""
        if self._active() != self._seen:
            await self._take()
        for drift in self._forecasts.take_drifts():
            if drift.cause != HOLE and self._drift is None:  # one training is for whatever else comes meanwhile, too
                self._drift, self._tries = drift, 0
        enough = enough_at(self._drift, self._config) if self._drift is not None else 0.0
        state = Standing(self._last, self._drift, self.model.generation is not None, enough, self._tries)
        wanted = due(now, state, self._retrain.every, self._retrain.pause)
        if wanted is not None and now >= self._retry:
            await self._train(wanted, now)

    # -- the champion --------------------------------------------------------------------------------------------

    def _active(self) -> int | None:
        with contextlib.suppress(ArtifactError):
            return self.registry.active()
        return None

    async def _take(self) -> None:
        """Forecast with the champion, if there is one that fits; for one that does not work, the one before it."""
        async with self._changing:
            while True:
                try:
                    champion = await self._champion()
                    self._seen = self._active()
                    if champion is not None:
                        await self._adopt(champion)
                    return
                except ForecastingError as error:
                    self._seen = self._active()
                    if not await self._refuse(str(error)):
                        return

    async def _champion(self) -> Champion | None:
        """The champion; where its files are damaged, the one before it, for good."""
        champion = await asyncio.to_thread(self.registry.champion)
        if champion is not None and champion.refused:
            self._say(
                f"refused: {'; '.join(one.reason for one in champion.refused)}; "
                f"generation {champion.generation.number} is used instead",
                refused=[one.number for one in champion.refused],
            )
            swap = await asyncio.to_thread(self.registry.settle, self._clock())
            if swap is not None:
                self._say_swap(swap, f"generation {swap.after} takes the place of {swap.before}")
        return champion

    async def _refuse(self, reason: str) -> bool:
        """Go back to the champion before the one that does not work; False where there is none."""
        self._say(f"refused: {reason}", refused=[self._seen])
        try:
            await asyncio.to_thread(self.registry.undo, self._clock(), reason)
        except ForecastingError:
            self.model = ModelState("failed", reason)
            return False
        swap = (await asyncio.to_thread(self.registry.history))[-1]
        self._say_swap(swap, f"generation {swap.after} takes the place of {swap.before}")
        return True

    async def _adopt(self, champion: Champion) -> None:
        number, card, past = champion.generation.number, champion.artifact.card, self._forecasts.past
        misfit = training.misfit(champion.artifact, past.step, past.season, self._config.forecast.horizon)
        if misfit:
            self.model = ModelState("failed", f"generation {number} is not used: {misfit}")
            self._say(self.model.detail, generation=number, refused=True)
            return
        bundle = await asyncio.to_thread(restored, champion.artifact)
        await self._forecasts.adopt(bundle.models, stored_references(card, past.step, past.season))
        self._drift, self._tries = None, 0
        names, count = ", ".join(model.name for model in bundle.models), len(card["data"]["series"])
        how = (
            "taken from the cache" if card.get("cached") else f"trained in {card.get('seconds', 0.0):.1f} s of CPU time"
        )
        detail = f"generation {number}: {names}, {how}, on {count} series"
        self.model = ModelState("ready", detail, bool(card.get("cached")), number)
        self._say(f"in use: {detail}", generation=number, cached=self.model.cached)

    # -- training ------------------------------------------------------------------------------------------------

    async def _train(self, wanted: Due, now: float) -> None:
        past = self._forecasts.past
        series = past.training_series(now)
        if not series:
            if self.model.generation is None and self.model.state != "failed":
                self.model = ModelState(
                    "none", f"{past.longest()} of {TRAINABLE} steps of history: too little to train on"
                )
            self._retry = now + _RETRY
            return
        self._last, drift = now, self._drift if wanted.kind == "drift" else None
        before = self._active()
        if self.model.generation is None:
            steps = sum(len(one.values) for one in series)
            self.model = ModelState("training", f"on {steps} steps of {len(series)} series")
        self._say(f"training begins: {wanted.reason}", due=wanted.kind)
        holdout = half_since(drift, series, now, self._config) if drift is not None else HOLDOUT
        order = order_of(self._config, wanted.reason, now, seeded=past.seeded, holdout=holdout)
        outcome = "failed"
        try:
            number = await self._in_child(series, order)
            outcome = "promoted" if await self._judge(number, before) else "kept"
            await asyncio.to_thread(self.registry.prune, self._retrain.keep)
        except (TrainingFailedError, ForecastingError, OSError) as error:
            self._failed(str(error))
        finally:
            seconds = self.governed.seconds if self.governed else 0.0
            self.governed = None
            self._tried(drift, outcome)
            self._say(f"training ended: {outcome}", outcome=outcome, training_seconds=round(seconds, 3))

    def _tried(self, drift: Drift | None, outcome: str) -> None:
        """A drift waits until what was trained for it is better than what there was, or there is no hope."""
        if drift is None or drift is not self._drift:
            return
        self._tries += 1
        if outcome == "promoted" or self._tries >= MOST_TRIES:
            self._drift, self._tries = None, 0

    async def _in_child(self, series: Sequence[Series], order: training.Order) -> int:
        folder = self.registry.folder / "training"
        most = _PATIENCE * order.settings.seconds + _GRACE + _EACH * len(series)
        try:
            await asyncio.to_thread(training.write, folder, series, order)
            self.governed = Governed([*self._command, str(folder), str(os.getpid())], folder, self._budget, most)
            return int((await self.governed.run())["generation"])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _failed(self, reason: str) -> None:
        self._say(f"training failed: {reason}")
        if self.model.generation is None:
            self.model = ModelState("failed", reason)

    async def _judge(self, number: int, before: int | None) -> bool:
        """Promote the challenger if it wins; whether it did."""
        if self._active() != before:
            text = f"generation {number} is kept aside: the champion changed while it was trained"
            self._say(text, generation=number)
            return False
        text, swap = await asyncio.to_thread(training.judge, self.registry, number, self._retrain.margin, self._clock())
        if swap is None:
            self._say(text, generation=number)
            return False
        self._say_swap(swap, text)
        await self._take()
        return True

    async def undo(self, reason: str) -> Swap:
        """Go back to the champion before this one. Raises RegistryError where there is none."""
        await asyncio.to_thread(self.registry.undo, self._clock(), reason or "asked for")
        swap = (await asyncio.to_thread(self.registry.history))[-1]
        self._say_swap(swap, f"undone: generation {swap.before} -> {swap.after}: {swap.reason}")
        await self._take()
        return swap

    # -- telling -------------------------------------------------------------------------------------------------

    def _say(self, message: str, **data: Any) -> None:
        self._journal.event("model", "forecaster", message, **data)

    def _say_swap(self, swap: Swap, message: str) -> None:
        self._say(message, swap=swap.kind, before=swap.before, after=swap.after)

    def progress(self) -> dict[str, Any] | None:
        """The training that runs: what it did last, and CPU seconds so far; None if none does."""
        governed = self.governed
        if governed is None:
            return None
        return {"seconds": round(governed.seconds, 1), "used_last_hour": round(self._budget.used, 1)} | (
            governed.progress() or {}
        )


def enough_at(drift: Drift, config: MeshConfig) -> float:
    """When so much has come since a drift that a training can learn from one half and be judged by the other."""
    return drift.since + 2 * _judged(config)


def half_since(drift: Drift, series: Sequence[Series], now: float, config: MeshConfig) -> float:
    """The share of a series to hold out of a training after a drift: half of what came since, so that there is
    something to learn from and something to be judged by; never more than usual, unless that is too little to judge.
    """
    length = next((len(one.values) * one.step for one in series if one.name == drift.series), math.inf)
    most = max(HOLDOUT, _judged(config) / length)
    return min(most, max(0.0, now - drift.since) / 2.0 / length)


def _judged(config: MeshConfig) -> float:
    """Seconds of one series that suffice to compare two generations."""
    return (training.LEAST_WINDOWS + config.forecast.horizon + _SPARE) * config.controller.tick


def _last_training(registry: Registry) -> float | None:
    """When the newest generation was trained, as its card says."""
    for one in reversed(registry.generations()):
        with contextlib.suppress(ForecastingError, TypeError, ValueError, KeyError):
            return float(registry.load(one.number).card["trained"])
    return None


__all__ = ["Due", "ModelState", "Retrainer", "due", "order_of", "registry_of"]
