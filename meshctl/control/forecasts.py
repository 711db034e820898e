"""Forecasts of every service's demand: history in, :class:`~meshctl.model.Demand` out.

Simple models forecast from the first tick on. Learned ones are handed in when they are there
(:mod:`meshctl.control.retraining`) and exchanged between two ticks; the mesh never waits for a model.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import Future
from collections.abc import Mapping, Sequence

import numpy as np

from forecasting.base import QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.calendar import Holidays
from forecasting.drift import Drift, Reference
from forecasting.ensemble import Selector
from forecasting.errors import ArtifactError
from forecasting.gates import Gate
from forecasting.models import MODELS
from forecasting.models.covariates import CovariateModel
from forecasting.outlook import Ahead, Outlook
from forecasting.selected import Selected
from forecasting.series import FloatArray, Series
from meshctl.config import MeshConfig
from meshctl.control.call_graph import CallGraph
from meshctl.control.journal import Journal
from meshctl.control.past import Past
from meshctl.control.watch import DriftWatch, references
from meshctl.model import Demand, Observation, ServiceObservation

SIMPLE = ("ewma", "median12", "median48", "seasonal_naive")
"""Models, beside last value, that need no training and cost a tick next to nothing."""


class Slot:
    """The place of a learned model: it can be exchanged, or empty, and who holds it keeps what it knows of the name."""

    def __init__(self, name: str, model: Forecaster) -> None:
        self.name = name
        self.model: Forecaster | None = model

    def predict(self, batch: Batch) -> FloatArray:
        """As the model says; an empty place is silent."""
        model = self.model
        if model is None:
            return np.full((len(batch), batch.horizon, len(QUANTILES)), np.nan)
        return model.predict(batch)


class Forecasts:
    """Keeps the selector, the drift detectors, and the last forecasts of one mesh."""

    def __init__(self, config: MeshConfig, past: Past, journal: Journal) -> None:
        self.past = past
        self.selected: dict[str, Selected] = {}
        self.demand: dict[str, Demand] = {}
        self.made = 0
        self.watch = DriftWatch()
        self.graph = CallGraph(past.step)
        holidays = holidays_of(config)
        self.beside = CovariateModel(holidays)
        days = None if holidays is None else self.beside  # metrics are not kept in coarser steps
        self.outlook = Outlook(past.step, config.forecast.day, len(config.services), days)
        self._config = config
        self._journal = journal
        self._slots: dict[str, Slot] = {}
        self._selector = self._select(())
        self._joining: Future[Selector] | None = None
        self._drifts: list[Drift] = []
        self._gates: dict[str, tuple[bool, ...]] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """Who takes part in the mixture."""
        return self._selector.names

    @property
    def joining(self) -> bool:
        """Whether a mixture with another member is learning from the past, beside the ticks."""
        return self._joining is not None and not self._joining.done()

    # -- models --------------------------------------------------------------------------------------------------

    async def adopt(self, models: Sequence[Forecaster], known: Mapping[str, Reference]) -> None:
        """Forecast with these learned models from the next tick on. ``known`` says what series were like when they were
        trained; those that it does not name are taken as they are now.

        The selector keeps its weights unless there is a model of a new name; then a new one forecasts the newest past
        in hindsight, beside the ticks, and then takes over. Raises ArtifactError, and changes nothing, where a
        model does not answer as it should.
        """
        await asyncio.to_thread(_try, models, self.past, self._config.forecast.horizon)
        series = self.past.series()
        told = await asyncio.to_thread(references, [one for one in series if one.name not in known])
        named = {model.name: model for model in models}
        if named.keys() <= self._slots.keys():
            for name, slot in self._slots.items():
                slot.model = named.get(name)
        else:
            slots = {name: Slot(name, model) for name, model in named.items()}
            fresh = await asyncio.to_thread(self._fresh, slots, series)
            self._slots, self._selector, self._joining = slots, fresh, None
        self.watch.begin({**told, **known})

    def _fresh(self, slots: Mapping[str, Slot], series: Sequence[Series]) -> Selector:
        """A selector that has forecast the newest past in hindsight."""
        fresh = self._select(tuple(slots.values()))
        fresh.update([one for one in series if one.name in self._config.services])
        return fresh

    def _select(self, learned: Sequence[Forecaster]) -> Selector:
        simple = [MODELS[name]() for name in SIMPLE]
        beside = [self.beside] if self._informed else []
        return Selector([*simple, *learned, self.graph.model, *beside], horizon=self._config.forecast.horizon)

    @property
    def _informed(self) -> bool:
        """Whether anything is known beside demand."""
        return self._config.forecast.holidays is not None or self.past.informed

    def _listen(self, series: Sequence[Series]) -> None:
        """Take what is beside demand into the mixture, once there is something: as a learned model of a new name."""
        joining = self._joining
        if joining is not None and joining.done():
            self._joining = None
            self._selector = joining.result()
        elif joining is None and self._informed and self.beside.name not in self._selector.names:
            loop = asyncio.get_running_loop()
            self._joining = loop.run_in_executor(None, self._fresh, self._slots, series)

    def take_drifts(self) -> list[Drift]:
        """What has drifted since the last call."""
        drifts, self._drifts = self._drifts, []
        return drifts

    # -- each tick -----------------------------------------------------------------------------------------------

    async def update(self, observation: Observation, *, masked: frozenset[str]) -> Mapping[str, Demand]:
        """Add the tick's demand (services in ``masked`` get a gap) and forecast every service."""
        planted = self.past.plant(observation)
        self.past.record(observation, masked)
        await asyncio.to_thread(self.graph.tick, observation, masked, self.selected)
        series = [one for one in self.past.series() if one.name in observation.services]
        self._listen(series)
        chosen, drifts = await asyncio.to_thread(self._forecast, series, planted)
        self.selected = {one.name: selected for one, selected in zip(series, chosen, strict=True)}
        self.made += len(self.selected)
        self._tell(drifts)
        steps = min(lead_steps(self._config), self._config.forecast.horizon)
        quantile = self._config.limits.quantile
        self.demand = {
            name: demand(selected, observation.services[name], steps, quantile)
            for name, selected in self.selected.items()
        }
        return self.demand

    def _forecast(self, series: Sequence[Series], planted: str | None) -> tuple[list[Selected], list[Drift]]:
        """Runs beside the event loop."""
        for one in references([one for one in series if one.name == planted]).values():
            self.watch.add(one)
        chosen = self._selector.update(series)
        self.outlook.update(series)
        return chosen, self.watch.observe(series, chosen)

    def ahead(self, services: Sequence[str]) -> dict[str, dict[str, Ahead]]:
        """Per service the forecasts of the next hour and day, in agreement with that of the next ticks."""
        known = {name: self.selected.get(name) for name in services}
        return {name: self.outlook.ahead(name, one.forecast if one else None) for name, one in known.items()}

    def _tell(self, drifts: Sequence[Drift]) -> None:
        """Journal what drifted and which gates moved."""
        self._drifts += drifts
        for drift in drifts:
            message = f"{drift.series}: {drift.cause}: {drift.evidence}"
            about = {"cause": drift.cause, "size": drift.size, "since": drift.since}
            self._journal.event("drift", drift.series, message, **about)
        for name, selected in self.selected.items():
            now = tuple(selected.standing.open[selected.row].tolist())
            before = self._gates.get(name, (False,) * len(now))
            self._gates[name] = now
            if now != before:
                for gate, was in zip(selected.gates, before, strict=True):
                    if gate.open != was:
                        self._tell_gate(name, gate, selected.reason)

    def _tell_gate(self, name: str, gate: Gate, reason: str) -> None:
        verb, told = "opens" if gate.open else "closes", gate.told()
        message = f"{name}: the gate of steps {gate.steps} {verb}: {told if told in reason else reason}"
        self._journal.event("gate", name, message, steps=gate.steps, open=gate.open, skill=gate.skill)


def _try(models: Sequence[Forecaster], past: Past, horizon: int) -> None:
    """Ask every model once: what cannot answer must not be found out by a tick."""
    for model in models:
        names = ["a stranger", *getattr(model, "names", ())[:1]]  # some answer only for those that they know
        series = [Series(name, 0.0, past.step, np.ones(64), past.season) for name in names]
        try:
            told = model.predict(Batch.now(series, horizon))
        except Exception as error:
            raise ArtifactError(f"model {model.name} does not answer ({error!r}); train it again") from error
        if told.shape != (len(names), horizon, len(QUANTILES)):
            raise ArtifactError(f"model {model.name} answers with shape {told.shape}; train it again")


def holidays_of(config: MeshConfig) -> Holidays | None:
    """The holidays that a mesh file names."""
    named = config.forecast.holidays
    return None if named is None else Holidays(named.country, named.subdivision, named.zone)


def lead_steps(config: MeshConfig) -> int:
    """Steps until a replica that is asked for now serves."""
    return max(1, math.ceil(config.scaling.startup / config.controller.tick) + 1)


def demand(selected: Selected, seen: ServiceObservation, steps: int, quantile: float) -> Demand:
    """What planning needs of a forecast. ``steps``: until a new replica serves."""
    return Demand(
        service=seen.service,
        model=selected.model,
        skilled=selected.may_act(1),
        peak_skilled=selected.may_act(steps),
        reason=selected.reason,
        expected=selected.forecast.at(1, 0.5),
        upper=selected.forecast.at(1, quantile),
        peak=selected.peak(steps, quantile),
    )
