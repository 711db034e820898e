"""One LSTM for all series: quantiles of every step ahead at once.

It is not asked for traffic but for a correction: the output starts as a learned convex mix of simple forecasts (recent
means and medians, yesterday and last week at today's level: ``forecasting.features``), and the network moves that. A
raw LSTM loses to last value.

    recent (N, W, C) --LSTM--> last state --+
    figures about the window and the step --+--> per step: MLP --> weights of the mix, shift, gaps between quantiles
    codes of the step and of the series ----+

Pinball loss, direct multi-horizon: Wen et al. 2017, A Multi-Horizon Quantile Recurrent Forecaster. The mix as base and
one network for all series: Smyl 2020, the hybrid winner of the M4 competition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forecasting.artifacts import Artifact
from forecasting.base import MEDIAN, QUANTILES, lawful
from forecasting.batch import Batch
from forecasting.errors import ArtifactError, HorizonError
from forecasting.features import CANDIDATES, CLOCK, A, Features, S, features
from forecasting.rows import chunks, taken
from forecasting.seasons import WINDOW
from forecasting.series import FloatArray, IntArray

CHANNELS = 6
YESTERDAY = 3
"""Channels before this one need no yesterday."""

STEP_CODE = 8
SERIES_CODE = 8
FIGURES = 2 * S + 2 * (A - CLOCK) + 2 * CLOCK

INNER = 128
"""Units between what is known about a step and the forecast."""

GAIN = 6.0
"""Lets the mix make up its mind early: with it 100 steps of training do what 300 did."""

UNKNOWN = 0
"""The code of a series that the network was not trained on."""

CHUNK = 256
"""Windows that go through the network at once: bounds memory during a replay."""


@dataclass(frozen=True, slots=True)
class Told:
    """The network's input as tensors: ``recent (N, W, CHANNELS)``, ``figures (N, H, FIGURES)``, ``candidates (N, H,
    CANDIDATES)``, ``noise (N,)``, ``who (N,)`` the codes of the series.
    """

    recent: Tensor
    figures: Tensor
    candidates: Tensor
    noise: Tensor
    who: Tensor


class Network(nn.Module):
    """Quantiles ``(N, H, Q)`` as ``(value - last) / scale``; see the module's picture.

    ``dropout``: share of what each layer reads that is hidden while training (Srivastava et al. 2014).
    """

    def __init__(self, horizon: int, hidden: int, series: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.horizon, self.hidden = horizon, hidden
        self.lstm = nn.LSTM(CHANNELS, hidden, batch_first=True)
        self.step = nn.Embedding(horizon, STEP_CODE)
        self.series = nn.Embedding(1 + series, SERIES_CODE)
        self.hide = nn.Dropout(dropout)
        self.inner = nn.Linear(hidden + FIGURES + STEP_CODE + SERIES_CODE, INNER)
        self.outer = nn.Linear(INNER, CANDIDATES + len(QUANTILES))
        self.prior = nn.Parameter(torch.zeros(horizon, CANDIDATES))
        nn.init.zeros_(self.outer.weight)  # the first forecast is the plain mean of the candidates
        nn.init.zeros_(self.outer.bias)
        nn.init.zeros_(self.series.weight)

    def forward(self, told: Told) -> Tensor:
        states, _ = self.lstm(told.recent)  # (N, W, D)
        count, horizon = told.figures.shape[:2]
        about = torch.cat([states[:, -1], self.series(told.who)], dim=1)  # (N, D + E)
        code = self.step.weight[:horizon].expand(count, -1, -1)  # (N, H, E)
        joint = torch.cat([about[:, None].expand(-1, horizon, -1), told.figures, code], dim=2)
        inner = nn.functional.silu(self.inner(self.hide(joint)))
        out = self.outer(self.hide(inner))  # (N, H, K + Q)
        mix = torch.softmax(GAIN * (out[..., :CANDIDATES] + self.prior[:horizon]), dim=2)
        median = (mix * told.candidates).sum(dim=2) + told.noise[:, None] * out[..., CANDIDATES + MEDIAN]  # (N, H)
        return spread(median, out[..., CANDIDATES:], told.noise)


def spread(median: Tensor, raw: Tensor, noise: Tensor) -> Tensor:
    """Quantiles around the median that cannot cross: gaps are positive, in units of the window's noise."""
    gaps = nn.functional.softplus(raw) * (noise[:, None, None] + 0.01)
    above = median[..., None] + torch.cumsum(gaps[..., MEDIAN + 1 :], dim=2)
    below = median[..., None] - torch.flip(torch.cumsum(torch.flip(gaps[..., :MEDIAN], [2]), dim=2), [2])
    return torch.cat([below, median[..., None], above], dim=2)


def told(seen: Features, who: IntArray) -> Told:
    """Features as the network reads them: compressed, clock times on a circle, unknown figures 0 and marked.

    ``who (N,)`` are the codes of the windows' series.
    """
    noise = np.abs(np.diff(seen.recent, axis=1)).mean(axis=1) / seen.scale
    return Told(
        _tensor(_channels(seen)),
        _tensor(_figures(seen)),
        _tensor(np.clip(seen.candidates, -20.0, 20.0)),
        _tensor(np.clip(noise, 1e-3, 5.0)),
        torch.as_tensor(np.asarray(who, dtype=np.int64)),
    )


def _channels(seen: Features) -> FloatArray:
    """``(N, WINDOW, CHANNELS)``: the newest values, their level and changes; yesterday's, whether they are known, and
    where they went from the last. The channels from ``YESTERDAY`` on need a yesterday.
    """
    last, scale = seen.last[:, None], seen.scale[:, None]
    recent, yesterday = squashed((seen.recent - last) / scale), squashed((seen.yesterday - last) / scale)
    level = np.minimum(np.log1p(np.maximum(seen.recent, 0.0) / scale) - np.log(2.0), 6.0)
    steps = np.diff(recent, axis=1, prepend=recent[:, :1])
    ahead = np.nan_to_num(yesterday - yesterday[:, -1:])
    return np.stack([recent, level, steps, np.nan_to_num(yesterday), np.isfinite(yesterday), ahead], axis=2)


def _figures(seen: Features) -> FloatArray:
    """``(N, H, FIGURES)``: figures about the window and the step, whether each is known, and the clock."""
    horizon = seen.ahead.shape[1]
    table = np.concatenate([np.repeat(seen.shared[:, None], horizon, axis=1), seen.ahead[:, :, :-CLOCK]], axis=2)
    turn = 2.0 * np.pi * seen.ahead[:, :, -CLOCK:]
    clock = np.nan_to_num(np.concatenate([np.sin(turn), np.cos(turn)], axis=2))
    return np.concatenate([np.nan_to_num(squashed(table)), np.isfinite(table), clock], axis=2)


def squashed(values: FloatArray) -> FloatArray:
    """``sign(x) log(1 + |x|)``, cut at 4: a burst is seen, and shouts nobody down."""
    return np.asarray(np.clip(np.sign(values) * np.log1p(np.abs(values)), -4.0, 4.0))


def _tensor(values: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let torch use ``threads`` threads inside; the process keeps its own number outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Lstm:
    """A trained network as a Forecaster. ``names`` are the series that it has codes for."""

    name = "lstm"
    minimum = 16

    def __init__(self, network: Network, names: Sequence[str], *, threads: int = 1) -> None:
        self.network = network.eval()
        self.names = tuple(names)
        self.threads = threads
        self._codes = {name: number for number, name in enumerate(self.names, start=1)}

    def predict(self, batch: Batch) -> FloatArray:
        """Raises HorizonError beyond the horizon that was trained. Silent below ``minimum`` known values."""
        if batch.horizon > self.network.horizon:
            raise HorizonError(
                f"the model sees {self.network.horizon} steps ahead, {batch.horizon} were asked for; "
                f"train it for {batch.horizon}"
            )
        seen = features(batch)
        who = np.array([self._codes.get(one.name, UNKNOWN) for one in batch.series])[batch.owner]
        z = self.run(seen, who)
        values = lawful(seen.last[:, None, None] + seen.scale[:, None, None] * z)
        values[np.isfinite(batch.newest(WINDOW)).sum(axis=1) < self.minimum] = np.nan
        return values

    def run(self, seen: Features, who: IntArray) -> FloatArray:
        """The network's answer ``(N, H, Q)``, in chunks."""
        z = np.empty((len(who), seen.ahead.shape[1], len(QUANTILES)))
        with limited(self.threads), torch.inference_mode():
            for rows in chunks(np.arange(len(who)), CHUNK):
                z[rows] = self.network(told(taken(seen, rows), who[rows])).numpy()
        return z

    def stored(self) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Arrays, and what must be known to read them again."""
        arrays = {name: part.detach().numpy() for name, part in self.network.state_dict().items()}
        shape = {"horizon": self.network.horizon, "hidden": self.network.hidden, "quantiles": list(QUANTILES)}
        return arrays, {**shape, "names": list(self.names)}

    @classmethod
    def restored(cls, stored: Artifact, threads: int = 1) -> Lstm:
        """The counterpart of ``stored``. Raises ArtifactError where the arrays do not fit."""
        try:
            shape = stored.card["lstm"]
            horizon, hidden, names = int(shape["horizon"]), int(shape["hidden"]), [str(n) for n in shape["names"]]
            if tuple(shape["quantiles"]) != QUANTILES or not all(1 <= n <= 4096 for n in (horizon, hidden)):
                raise ValueError(f"shape {shape} does not fit")
            network = Network(horizon, hidden, len(names))
            if not all(np.isfinite(part).all() for part in stored.arrays.values()):
                raise ValueError("a weight is not finite")
            network.load_state_dict({name: torch.from_numpy(part) for name, part in stored.arrays.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())  # torch's has a line per weight
            raise ArtifactError(f"the LSTM is not one of this version ({reason}); train it again") from error
        return cls(network, names, threads=threads)
