"""Training the LSTM within a budget, and keeping the result.

The budget is a number of steps (so that the same seed gives the same weights) under a wall-clock cap (so that a slow
machine starts on time). The newest tenth of every series is never trained on: the card's scores and the selector's
replay of that part are out of sample.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forecasting.artifacts import FORMAT
from forecasting.base import QUANTILES
from forecasting.errors import ArtifactError, TrainingError
from forecasting.evaluate.stats import coverage, relative_wape
from forecasting.features import Blocks, blocks, features, joined
from forecasting.models.lstm import Lstm, Network, limited, tensors
from forecasting.series import FloatArray, IntArray, Series, clean, last_known, masked_mean

Progress = Callable[[int, int, str], None]
Clock = Callable[[], float]

SCORED = (1, 5, 12)
"""Steps ahead that the card reports."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train.

    ``seconds``: wall-clock cap and, at ``rate`` steps per second, the number of steps; ``steps`` overrides the
    latter. ``horizon`` and ``window``: steps ahead and back. ``threads``: of torch, while training (a second one
    gains little, and costs most steps on a busy machine). ``hidden``: size of the LSTM's state. ``batch``: windows
    per step. ``learning_rate`` falls to 0 along a cosine. ``average``: decay of the moving average of the weights.
    ``forget``: share of windows whose season is hidden, and again whose older values are, so that the network copes
    with short histories. ``holdout``: newest share of each series that is kept for the scores.
    """

    seconds: float = 20.0
    horizon: int = 12
    window: int = 48
    seed: int = 0
    threads: int = 1
    hidden: int = 32
    batch: int = 256
    learning_rate: float = 4e-3
    average: float = 0.98
    forget: float = 0.1
    holdout: float = 0.1
    rate: float = 25.0
    steps: int | None = None

    @property
    def budget(self) -> int:
        """Optimiser steps at most."""
        return max(1, round(self.seconds * self.rate)) if self.steps is None else self.steps


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Windows to draw from: ``owner (N,)`` is the series of each, ``origin (N,)`` where it ends; ``noise`` per
    series.
    """

    series: tuple[Series, ...]
    owner: IntArray
    origin: IntArray
    noise: FloatArray


def train(series: Sequence[Series], settings: TrainSettings, progress: Progress, clock: Clock = time.monotonic) -> Lstm:
    """Learn from all ``series``. Raises TrainingError where none is long enough or all are constant."""
    began = clock()
    pool = windows(series, settings)
    with limited(settings.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Network(settings.horizon, settings.hidden)
        done = _descend(network, pool, settings, progress, clock)
    model = Lstm(network, settings.window, {})
    model.card.update(_card(series, settings, done, clock() - began))
    model.card["scores"] = scores(model, series, settings)
    progress(settings.budget, settings.budget, "trained")
    return model


def windows(series: Sequence[Series], settings: TrainSettings) -> Pool:
    """Every origin with enough known values behind it and one ahead, outside the holdout."""
    kept: list[Series] = []
    owner, origin, noise = [], [], []
    for one in series:
        past = one.until(kept_length(len(one.values), settings))
        restless = float(np.nan_to_num(masked_mean(np.abs(np.diff(clean(past.values))))))
        found = _origins(past.values, settings)
        if restless > 0 and len(found):
            owner.append(np.full(len(found), len(kept)))
            kept.append(past)
            origin.append(found)
            noise.append(restless)
    if not kept:
        least = Lstm.minimum + settings.horizon
        raise TrainingError(
            f"none of {len(series)} series has {least} known, changing values to learn from; record more first"
        )
    return Pool(tuple(kept), np.concatenate(owner), np.concatenate(origin), np.array(noise))


def kept_length(length: int, settings: TrainSettings) -> int:
    """Values of a series that may be trained on."""
    return length - int(length * settings.holdout)


def _origins(values: FloatArray, settings: TrainSettings) -> IntArray:
    """Origins whose window has ``Lstm.minimum`` known values and whose horizon lies inside and has a known value."""
    counts = np.concatenate([[0], np.cumsum(np.isfinite(values))])
    origins = np.arange(Lstm.minimum, len(values) - settings.horizon + 1)
    behind = counts[origins] - counts[np.maximum(origins - settings.window, 0)]
    ahead = counts[origins + settings.horizon] - counts[origins]
    return np.asarray(origins[(behind >= Lstm.minimum) & (ahead > 0)])


def _descend(network: Network, pool: Pool, settings: TrainSettings, progress: Progress, clock: Clock) -> int:
    """Adam under the budget; leaves the averaged weights in ``network`` and returns the steps done."""
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    average = [part.detach().clone() for part in network.parameters()]
    total, began = settings.budget, clock()
    for step in range(total):
        spent = max(step / total, (clock() - began) / max(settings.seconds, 1e-9))
        if spent >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1.0 + np.cos(np.pi * spent))
        loss = _step(network, optimizer, pool, rng, settings)
        _blend(average, network, min(settings.average, (1 + step) / (10 + step)))
        if step % 10 == 0:
            progress(step, total, f"loss {loss:.3f}")
    with torch.no_grad():
        for part, mean in zip(network.parameters(), average, strict=True):
            part.copy_(mean)
    return step + 1 if spent < 1.0 else step


def _step(
    network: Network, optimizer: torch.optim.Optimizer, pool: Pool, rng: np.random.Generator, settings: TrainSettings
) -> float:
    raw, target, noise = draw(pool, rng, settings)
    told = features(raw, settings.horizon)
    weight = torch.from_numpy((told.scale / noise).astype(np.float32))
    actual = torch.from_numpy((target / told.scale[:, None]).astype(np.float32))
    loss = pinball_loss(network(*tensors(told)), actual, weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def pinball_loss(z: Tensor, actual: Tensor, weight: Tensor) -> Tensor:
    """Mean pinball loss in units of the series' own noise.

    ``z (B, H, Q)`` compressed quantiles, ``actual (B, H)`` relative to the window's scale, NaN = gap; ``weight (B,)``
    = scale / noise. Errors count as they do in the WAPE: by size, not by share, so busy hours matter most.
    """
    known = torch.isfinite(actual)
    error = torch.nan_to_num(actual)[..., None] - torch.expm1(z)
    levels = torch.tensor(QUANTILES)
    loss = torch.maximum(levels * error, (levels - 1.0) * error).mean(dim=2) * known * weight[:, None]
    return loss.sum() / known.sum().clamp(min=1)


def _blend(average: list[Tensor], network: Network, decay: float) -> None:
    with torch.no_grad():
        for mean, part in zip(average, network.parameters(), strict=True):
            mean.lerp_(part, 1.0 - decay)


def draw(pool: Pool, rng: np.random.Generator, settings: TrainSettings) -> tuple[Blocks, FloatArray, FloatArray]:
    """A batch: raw blocks, targets ``(B, H)`` with NaN for gaps, and the noise of each window's series ``(B,)``."""
    picked = np.sort(rng.integers(len(pool.owner), size=settings.batch))  # sorted: windows of one series stand together
    owners, origins = pool.owner[picked], pool.origin[picked]
    parts, targets = [], []
    for number in np.unique(owners):
        one, mine = pool.series[number], origins[owners == number]
        parts.append(blocks(one, mine, settings.window, settings.horizon))
        targets.append(clean(one.values[mine[:, None] + np.arange(settings.horizon)]))
    return forget(joined(parts), rng, settings), np.concatenate(targets), pool.noise[owners]


def forget(raw: Blocks, rng: np.random.Generator, settings: TrainSettings) -> Blocks:
    """Hide the seasons of some windows and the older values of others, as in a short history."""
    count = len(raw.recent)
    nothing = rng.random(count) < settings.forget
    young = rng.random(count) < settings.forget
    length = rng.integers(Lstm.minimum, settings.window, size=count, endpoint=True)
    old = young[:, None] & (np.arange(settings.window, 0, -1) > length[:, None])
    no_week = (nothing | young | (rng.random(count) < settings.forget))[:, None]
    return replace(
        raw,
        recent=np.where(old, np.nan, raw.recent),
        day=np.where((nothing | young)[:, None], np.nan, raw.day),
        week=np.where(no_week, np.nan, raw.week),
    )


def scores(model: Lstm, series: Sequence[Series], settings: TrainSettings, most: int = 2000) -> dict[str, Any]:
    """Out of sample, over the holdouts: WAPE relative to last value at ``SCORED`` steps, and coverage of 0.05 and
    0.95.
    """
    actual, values, last = _replay(model, series, settings, most)
    result: dict[str, Any] = {"windows": len(actual)}
    for h in (h for h in SCORED if h <= settings.horizon and len(actual)):
        seen, told = actual[:, h - 1], values[:, h - 1]
        result[f"h{h}"] = {
            "relative_wape": round(relative_wape(seen, told[:, QUANTILES.index(0.5)], last), 4),
            "below_0.05": round(coverage(seen, told[:, QUANTILES.index(0.05)]), 4),
            "below_0.95": round(coverage(seen, told[:, QUANTILES.index(0.95)]), 4),
        }
    return result


def _replay(
    model: Lstm, series: Sequence[Series], settings: TrainSettings, most: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Actual ``(N, H)``, forecast ``(N, H, Q)`` and last value ``(N,)`` at up to ``most`` origins of the holdouts."""
    parts, actual, last = [], [], []
    for one in series:
        origins = np.arange(
            max(Lstm.minimum, kept_length(len(one.values), settings)), len(one.values) - settings.horizon + 1
        )
        origins = origins[:: max(1, len(origins) * len(series) // most)]
        if len(origins):
            raw = blocks(one, origins, settings.window, settings.horizon)
            parts.append(raw)
            actual.append(clean(one.values[origins[:, None] + np.arange(settings.horizon)]))
            last.append(last_known(raw.recent))
    if not parts:
        empty = np.empty((0, settings.horizon))
        return empty, np.empty((0, settings.horizon, len(QUANTILES))), np.empty(0)
    return np.concatenate(actual), model.quantiles(joined(parts)), np.concatenate(last)


def _card(series: Sequence[Series], settings: TrainSettings, steps: int, seconds: float) -> dict[str, Any]:
    return {
        "data": {
            "sha256": digest(series),
            "series": [
                {"name": s.name, "start": s.start, "end": s.end, "step": s.step, "season": s.season} for s in series
            ],
        },
        "settings": asdict(settings),
        "steps": steps,
        "seconds": round(seconds, 3),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": str(torch.__version__)},
    }


def digest(series: Sequence[Series]) -> str:
    """SHA-256 over names, values, steps and seasons; not over times: the features know none, so that a recorded past
    that is replayed at another date finds its model again.
    """
    total = hashlib.sha256()
    for one in series:
        head = [one.name, one.step, one.season, len(one.values)]
        total.update(json.dumps(head).encode() + np.ascontiguousarray(one.values, dtype="<f8").tobytes())
    return total.hexdigest()


def cache_key(series: Sequence[Series], settings: TrainSettings) -> str:
    """The name under which the same data, settings and format are found again."""
    told = json.dumps([FORMAT, digest(series), asdict(settings), list(QUANTILES)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def train_or_load(
    series: Sequence[Series],
    settings: TrainSettings,
    cache_dir: Path,
    progress: Progress,
    clock: Clock = time.monotonic,
) -> tuple[Lstm, bool]:
    """The model for exactly these data and settings, and whether it came from ``cache_dir``. A damaged one is trained
    again.
    """
    folder = cache_dir / f"lstm-{cache_key(series, settings)}"
    try:
        return Lstm.load(folder), True
    except ArtifactError:
        model = train(series, settings, progress, clock)
        model.save(folder)
        return model, False
