"""Training the LSTM within a budget.

The budget is a number of steps (so that the same seed gives the same weights) under a wall-clock cap (so that a slow
machine starts on time). Everything in the series that are given is trained on: whoever wants to judge the result
keeps the newest values back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forecasting.base import QUANTILES
from forecasting.batch import Batch
from forecasting.errors import TrainingError
from forecasting.features import (
    AHEAD,
    CLOCK,
    MEANS,
    OTHERWISE,
    SEASONAL,
    SHARED,
    SIMPLE,
    Features,
    Float32Array,
    features,
)
from forecasting.models.lstm import UNKNOWN, YESTERDAY, Lstm, Network, Told, limited, told
from forecasting.rows import joined, taken
from forecasting.seasons import WINDOW
from forecasting.series import FloatArray, IntArray, Series, clean, masked_mean

Progress = Callable[[int, int, str], None]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train.

    ``seconds``: wall-clock cap and, at ``rate`` steps per second, the number of steps. ``steps``: exactly so many,
    whatever the clock says, so that the result is the same on any machine. ``horizon``: steps ahead. ``threads``: of
    torch, while training (a second one gains little, and costs most steps on a busy machine). ``hidden``: size of the
    LSTM's state. ``batch``: windows per step. ``windows``: drawn from, at most, over all series. ``learning_rate``
    falls to 0 along a cosine. ``average``: decay of the moving average of the weights. ``dropout``: share of inputs
    hidden from each layer; without it the network learns short histories by heart. ``balance``: how often a series is
    drawn grows with its windows to this power: 1 draws all windows alike, so that short series hardly count; 0 all
    series. ``forget``: share of windows whose earlier seasons are hidden, so that the network copes with short
    histories. ``anonymous``: share of windows whose series is not named, so that it copes with new ones.
    """

    seconds: float = 60.0
    horizon: int = 12
    seed: int = 0
    threads: int = 1
    hidden: int = 32
    batch: int = 256
    windows: int = 100_000
    learning_rate: float = 4e-3
    average: float = 0.995
    dropout: float = 0.15
    balance: float = 0.75
    forget: float = 0.1
    anonymous: float = 0.1
    rate: float = 25.0
    steps: int | None = None

    @property
    def budget(self) -> int:
        """Optimiser steps at most."""
        return max(1, round(self.seconds * self.rate)) if self.steps is None else self.steps


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Windows to draw from: ``target (N, H)`` as ``(value - last) / scale`` (NaN = gap), ``weight (N, H)`` turns errors
    into units of the series' own noise, ``who (N,)`` is the code of each window's series. Windows of one series stand
    together: ``count`` of them from ``first`` on, drawn with probability ``share``, ``(G,)`` each.
    """

    seen: Features
    target: Float32Array
    weight: Float32Array
    who: IntArray
    first: IntArray
    count: IntArray
    share: FloatArray
    names: tuple[str, ...]

    def draw(self, rng: np.random.Generator, size: int) -> IntArray:
        """Rows of ``size`` windows: a series first, then any of its windows."""
        series = rng.choice(len(self.share), size=size, p=self.share)
        return self.first[series] + rng.integers(self.count[series])


def train(series: Sequence[Series], settings: TrainSettings, progress: Progress, clock: Clock = time.monotonic) -> Lstm:
    """Learn from all ``series``. Raises TrainingError where none is long enough or all are constant."""
    began = clock()
    pool = windows(series, settings)
    with limited(settings.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Network(settings.horizon, settings.hidden, len(pool.names), settings.dropout)
        _descend(network, pool, settings, progress, lambda: clock() - began)
    progress(settings.budget, settings.budget, "trained")
    return Lstm(network, pool.names)


def windows(series: Sequence[Series], settings: TrainSettings) -> Pool:
    """Origins of every series that is long enough and changes, the newest if there are too many."""
    fit = [one for one in series if len(_counts(one, settings)) > 0 and restless(one, 1)[0] > 0]
    if not fit:
        least = Lstm.minimum + settings.horizon
        raise TrainingError(
            f"none of {len(series)} series has {least} known, changing values to learn from; record more first"
        )
    keep = min(1.0, settings.windows / sum(len(_counts(one, settings)) for one in fit))
    parts = [_part(one, code, keep, settings) for code, one in enumerate(fit, start=1)]
    count = np.array([len(part[1]) for part in parts])
    share = count**settings.balance
    return Pool(
        seen=joined([part[0] for part in parts]),
        target=np.concatenate([part[1] for part in parts]),
        weight=np.concatenate([part[2] for part in parts]),
        who=np.repeat(np.arange(1, len(fit) + 1), count),
        first=np.cumsum(count) - count,
        count=count,
        share=share / share.sum(),
        names=tuple(one.name for one in fit),
    )


def _counts(one: Series, settings: TrainSettings) -> IntArray:
    """Origins with enough known values behind them and one known value ahead."""
    known = np.isfinite(one.values)
    before = np.concatenate([[0], np.cumsum(known)])
    origins = np.arange(Lstm.minimum, len(one.values) - settings.horizon + 1)
    if not len(origins):
        return origins
    recent = before[origins] - before[np.maximum(origins - WINDOW, 0)]
    ahead = before[origins + settings.horizon] - before[origins]
    return np.asarray(origins[(recent >= Lstm.minimum) & (ahead > 0)])


def _part(one: Series, code: int, keep: float, settings: TrainSettings) -> tuple[Features, Float32Array, Float32Array]:
    """The windows of one series: what is seen, targets and weights."""
    counts = _counts(one, settings)
    if keep < 1.0:
        rng = np.random.default_rng([settings.seed, code])
        counts = np.sort(rng.choice(counts, max(1, int(keep * len(counts))), replace=False))
    batch = Batch.at(one, counts, settings.horizon)
    seen = features(batch)
    target = (batch.actual() - seen.last[:, None]) / seen.scale[:, None]
    weight = seen.scale[:, None] / restless(one, settings.horizon)
    return seen, target.astype(np.float32), weight.astype(np.float32)


def restless(one: Series, horizon: int) -> FloatArray:
    """Mean absolute difference over h steps, ``(H,)``: the error of last value, and so the unit of every loss."""
    values = clean(one.values)
    steps = [np.nan_to_num(masked_mean(np.abs(values[h:] - values[:-h]))) for h in range(1, horizon + 1)]
    return np.maximum(np.array(steps, dtype=np.float64), 1e-3 * max(steps) + 1e-12 if max(steps) > 0 else 0.0)


def _descend(
    network: Network, pool: Pool, settings: TrainSettings, progress: Progress, elapsed: Callable[[], float]
) -> None:
    """Adam along a cosine until the budget is spent; leaves the moving average of the weights in ``network`` (Polyak &
    Juditsky 1992).
    """
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    average = [part.detach().clone() for part in network.parameters()]
    for step in range(settings.budget):
        spent = _spent(step, settings, elapsed)
        if spent >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1.0 + np.cos(np.pi * spent))
        loss = pinball_loss(*_draw(network, pool, rng, settings))
        _follow(network, optimizer, loss)
        _blend(average, network.parameters(), min(settings.average, (1 + step) / (10 + step)))
        if step % 10 == 0:
            progress(step, settings.budget, f"loss {float(loss.detach()):.3f}")
    _blend(list(network.parameters()), average, 0.0)


def _spent(step: int, settings: TrainSettings, elapsed: Callable[[], float]) -> float:
    """The share of the budget that is gone: of the steps or of the time, whichever is more."""
    share = step / settings.budget
    if settings.steps is not None:
        return share
    return max(share, elapsed() / settings.seconds) if settings.seconds > 0 else 1.0


def _draw(
    network: Network, pool: Pool, rng: np.random.Generator, settings: TrainSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """The network's answer to some windows of the pool ``(B, H, Q)``, what came and each error's weight ``(B, H)``."""
    rows = pool.draw(rng, settings.batch)
    seen = taken(pool.seen, rows)
    z = network(forgetful(told(seen, pool.who[rows]), rng, settings))
    nothing = torch.from_numpy((-seen.last / seen.scale).astype(np.float32))
    target = torch.from_numpy(pool.target[rows])
    return forgiven(z, target, nothing), target, torch.from_numpy(pool.weight[rows])


def forgiven(z: Tensor, actual: Tensor, nothing: Tensor) -> Tensor:
    """``z (N, H, Q)`` as if right where it lies below ``nothing (N,)``, which is no traffic, and none came ``(N, H)``:
    it is served as 0. Where traffic comes and goes the median is exactly 0, and what is smooth gets there only from
    below.
    """
    floor, came = nothing[:, None, None], actual[..., None]
    return torch.where((z < floor) & (came <= floor), came, z)


def _follow(network: Network, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def pinball_loss(z: Tensor, actual: Tensor, weight: Tensor) -> Tensor:
    """Mean pinball loss in units of the series' own noise: ``z (N, H, Q)``, ``actual`` and ``weight (N, H)``.

    A gap (NaN in ``actual``) costs nothing. Koenker & Bassett 1978.

    Errors count as they do in the WAPE: by size, not by share, so busy hours matter most.
    """
    known = torch.isfinite(actual)
    error = torch.nan_to_num(actual)[..., None] - z
    levels = torch.tensor(QUANTILES)
    loss = torch.maximum(levels * error, (levels - 1.0) * error).mean(dim=2) * known * weight
    return loss.sum() / known.sum().clamp(min=1)


def _blend(into: Sequence[Tensor], parts: Iterable[Tensor], decay: float) -> None:
    """Move each tensor of ``into`` towards its counterpart, in place."""
    with torch.no_grad():
        for mean, part in zip(into, parts, strict=True):
            mean.lerp_(part, 1.0 - decay)


MEAN = 1 + MEANS.index(OTHERWISE)
"""The candidate that stands in for an unknown season."""


def forgetful(inputs: Told, rng: np.random.Generator, settings: TrainSettings) -> Told:
    """Hide the seasons of some windows, and the names of the series of others."""
    count = len(inputs.who)
    young = torch.from_numpy(rng.random(count) < settings.forget)
    nameless = torch.from_numpy(rng.random(count) < settings.anonymous)
    recent, figures, candidates = inputs.recent.clone(), inputs.figures.clone(), inputs.candidates.clone()
    recent[young, :, YESTERDAY:] = 0.0
    figures[young] *= _ageless()
    candidates[young, :, SIMPLE:] = candidates[young, :, MEAN : MEAN + 1]
    return Told(recent, figures, candidates, inputs.noise, torch.where(nameless, UNKNOWN, inputs.who))


def _ageless() -> Tensor:
    """1 for figures that a series without a yesterday has, 0 for others: values first, then whether each is known."""
    keep = torch.tensor([float(figure not in SEASONAL) for figure in (*SHARED, *AHEAD[:-CLOCK])])
    return torch.cat([keep, keep, torch.ones(2 * CLOCK)])
