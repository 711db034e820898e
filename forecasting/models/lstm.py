"""One LSTM for all series: quantiles of every step ahead at once.

It is not asked for traffic but for a correction: the output starts as a learned convex mix of recent means and of the
same time yesterday and last week (``forecasting.features``), and the network moves that. A raw LSTM loses to last
value.

    recent (B, W, C) --LSTM--> last state (B, D) --+
    summary (B, S) -------------------------------+--> per step: MLP --> weights of the mix, shift, gaps of quantiles
    ahead (B, H, A), embedding of the step -------+

Pinball loss, direct multi-horizon: Wen et al. 2017, A Multi-Horizon Quantile Recurrent Forecaster. The mix as base:
Smyl 2020, the hybrid winner of the M4 competition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forecasting import artifacts
from forecasting.base import QUANTILES, Forecast, forecast_of, lawful
from forecasting.errors import ArtifactError, HorizonError
from forecasting.features import AHEAD, CANDIDATES, CHANNELS, SUMMARY, Blocks, Features, blocks, features, joined
from forecasting.series import FloatArray, Series

STEP_CODE = 8
"""Size of the embedding that tells the head which step ahead it is."""

GAIN = 6.0
"""Lets the mix make up its mind early: with it 100 steps of training do what 300 did."""

MEDIAN = QUANTILES.index(0.5)

CHUNK = 1024
"""Windows that go through the network at once: bounds memory during a replay."""


class Network(nn.Module):
    """Features to compressed quantiles ``(B, H, Q)``; see the module's picture."""

    def __init__(self, horizon: int, hidden: int) -> None:
        super().__init__()
        self.horizon, self.hidden = horizon, hidden
        self.lstm = nn.LSTM(CHANNELS, hidden, batch_first=True)
        self.step = nn.Embedding(horizon, STEP_CODE)
        self.inner = nn.Linear(hidden + SUMMARY + AHEAD + STEP_CODE, 64)
        self.outer = nn.Linear(64, CANDIDATES + len(QUANTILES))
        self.prior = nn.Parameter(torch.zeros(horizon, CANDIDATES))
        nn.init.zeros_(self.outer.weight)  # the first forecast is the plain mean of the candidates
        nn.init.zeros_(self.outer.bias)

    def forward(self, recent: Tensor, summary: Tensor, ahead: Tensor, candidates: Tensor, noise: Tensor) -> Tensor:
        states, _ = self.lstm(recent)  # (B, W, D)
        told = torch.cat([states[:, -1], summary], dim=1)  # (B, D + S)
        horizon = ahead.shape[1]
        code = self.step.weight.expand(len(told), -1, -1)  # (B, H, E)
        joint = torch.cat([told[:, None].expand(-1, horizon, -1), ahead, code], dim=2)
        out = self.outer(nn.functional.silu(self.inner(joint)))  # (B, H, K + Q)
        mix = torch.softmax(GAIN * (out[..., :CANDIDATES] + self.prior), dim=2)
        median = (mix * candidates).sum(dim=2) + noise[:, None] * out[..., CANDIDATES + MEDIAN]  # (B, H)
        return _spread(median, out[..., CANDIDATES:], noise)


def _spread(median: Tensor, raw: Tensor, noise: Tensor) -> Tensor:
    """Quantiles around the median that cannot cross: gaps are positive, in units of the window's noise."""
    gaps = nn.functional.softplus(raw) * (noise[:, None, None] + 0.01)
    above = median[..., None] + torch.cumsum(gaps[..., MEDIAN + 1 :], dim=2)
    below = median[..., None] - torch.flip(torch.cumsum(torch.flip(gaps[..., :MEDIAN], [2]), dim=2), [2])
    return torch.cat([below, median[..., None], above], dim=2)


def tensors(told: Features) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The network's arguments, sharing memory with the arrays."""
    parts = (told.recent, told.summary, told.ahead, told.candidates, told.noise)
    recent, summary, ahead, candidates, noise = (torch.from_numpy(part) for part in parts)
    return recent, summary, ahead, candidates, noise


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
    """A trained network as a Forecaster. ``card`` says what it learned from and how it scored."""

    name = "lstm"
    minimum = 16

    def __init__(self, network: Network, window: int, card: Mapping[str, Any], *, threads: int = 1) -> None:
        self.network = network.eval()
        self.window, self.horizon, self.hidden = window, network.horizon, network.hidden
        self.threads = threads
        self.card = dict(card)

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        """Raises HorizonError beyond the horizon that was trained."""
        if horizon > self.horizon:
            raise HorizonError(
                f"the model sees {self.horizon} steps ahead, {horizon} were asked for; train it for {horizon}"
            )
        able = [one for one in series if _enough(one, self.window, self.minimum)]
        if not able:
            return [None] * len(series)
        raw = joined([blocks(one, np.array([len(one.values)]), self.window, self.horizon) for one in able])
        rows = iter(self.quantiles(raw)[:, :horizon])
        chosen = {id(one) for one in able}
        return [forecast_of(one, self.name, next(rows)) if id(one) in chosen else None for one in series]

    def quantiles(self, raw: Blocks) -> FloatArray:
        """Quantiles ``(B, H, Q)`` in the unit of the series."""
        told = features(raw, self.horizon)
        with limited(self.threads), torch.inference_mode():
            parts = zip(*(torch.split(part, CHUNK) for part in tensors(told)), strict=True)
            z = torch.cat([self.network(*part) for part in parts]).numpy().astype(np.float64)
        return lawful(told.scale[:, None, None] * np.expm1(np.clip(z, 0.0, 8.0)))

    def save(self, folder: Path) -> None:
        """Write weights and card; see ``forecasting.artifacts``."""
        shape = {"window": self.window, "horizon": self.horizon, "hidden": self.hidden, "quantiles": list(QUANTILES)}
        arrays = {name: part.detach().numpy() for name, part in self.network.state_dict().items()}
        artifacts.save(folder, arrays, {**self.card, "model": self.name, "shape": shape})

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Lstm:
        """Read what ``save`` wrote. Raises ArtifactError where it is damaged, foreign, or shaped otherwise."""
        stored = artifacts.load(folder)
        try:
            shape = stored.card["shape"]
            window, horizon, hidden = int(shape["window"]), int(shape["horizon"]), int(shape["hidden"])
            if tuple(shape["quantiles"]) != QUANTILES or not all(1 <= n <= 4096 for n in (window, horizon, hidden)):
                raise ValueError(f"shape {shape} does not fit")
            network = Network(horizon, hidden)
            network.load_state_dict({name: torch.from_numpy(part) for name, part in stored.arrays.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"{folder}: is not a model of this version ({error}); train it again") from error
        return cls(network, window, stored.card, threads=threads)


def _enough(series: Series, window: int, minimum: int) -> bool:
    return int(np.isfinite(series.values[-window:]).sum()) >= minimum
