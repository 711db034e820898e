"""Did replicas come before the load that needed them? Pure: numbers in, one record per scale-up out.

For every step from ``n`` to ``n + 1`` replicas there are three moments:

- **needed**: when demand (the mean of three ticks around the moment, so that one noisy tick decides nothing) first
exceeded what ``n``
  replicas serve at the target utilisation: ``n * concurrency / service time * target``, with the service's median
  service time of the run;
- **ready**: when the new replica served;
- **reactive ready**: when the replica would have served, had it been asked for at the tick at which the reactive
rule alone (the
  formula of the Kubernetes HPA, on the same measurements) first wanted ``n + 1``, with the same time to start.

The lead is needed minus ready: positive is early, negative is late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

Json = dict[str, Any]
#: How long before a scale-up its reason may lie (seconds): later scale-downs bound it too.
LOOK_BACK = 60.0


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """One replica more. Times are seconds since the epoch, leads seconds (None: it did not happen, or was never
    needed).
    """

    service: str
    previous: int
    replicas: int
    asked_at: float
    ready_at: float | None
    needed_at: float | None
    lead: float | None
    reactive_asked_at: float | None
    reactive_ready_at: float | None
    reactive_lead: float | None
    serves: float | None

    @property
    def verdict(self) -> str:
        """In words."""
        if self.ready_at is None:
            return "not ready before the end"
        if self.lead is None:
            return "never needed"
        return "early" if self.lead >= 0 else "late"

    def document(self) -> Json:
        """As the report's JSON has it."""
        return {**asdict(self), "verdict": self.verdict}


def scale_ups(run: Mapping[str, Any]) -> list[ScaleUp]:
    """All scale-ups of a run, in time order."""
    replicas = sorted(run["replicas"], key=lambda replica: float(replica["asked_at"]))
    found = []
    for event, count in _steps(run["scale_events"]):
        replica = _take(replicas, event)
        window = _window(run["scale_events"], event, count)
        found.append(_scale_up(run, event, count, replica, window))
    return found


def _steps(events: Sequence[Json]) -> Iterator[tuple[Json, int]]:
    """Each replica that was asked for: the event and the count that it made."""
    for event in events:
        for count in range(event["previous"] + 1, event["desired"] + 1):
            yield event, count


def _take(replicas: list[Json], event: Json) -> Json | None:
    """The first replica that was made for the event; taken, so that the next step gets the next one."""
    for index, replica in enumerate(replicas):
        if replica["service"] == event["service"] and replica["asked_at"] >= event["time"] - 0.5:
            return replicas.pop(index)
    return None


def _window(events: Sequence[Json], event: Json, count: int) -> tuple[float, float]:
    """When the need may show: while fewer than ``count`` were desired before it, until fewer are again."""
    same = [e for e in events if e["service"] == event["service"]]
    downs = [e["time"] for e in same if e["desired"] < count <= e["previous"]]
    before = max((time for time in downs if time < event["time"]), default=0.0)
    after = min((time for time in downs if time > event["time"]), default=float("inf"))
    return max(before, event["time"] - LOOK_BACK), after


def _scale_up(
    run: Mapping[str, Any], event: Json, count: int, replica: Json | None, window: tuple[float, float]
) -> ScaleUp:
    name = event["service"]
    ready_at = replica["ready_at"] if replica else None
    serves = _serves(run, name, count - 1)
    needed_at = _first(smoothed_demand(run["ticks"], name), window, serves)
    wanted = [(tick["time"], _of(tick, name, "hpa")) for tick in run["ticks"]]
    reactive_at = _first(wanted, window, count - 0.5)
    start_time = ready_at - event["time"] if ready_at is not None else run["config"]["startup"]
    reactive_ready = None if reactive_at is None else reactive_at + start_time
    return ScaleUp(
        service=name,
        previous=count - 1,
        replicas=count,
        asked_at=event["time"],
        ready_at=ready_at,
        needed_at=needed_at,
        lead=_difference(needed_at, ready_at),
        reactive_asked_at=reactive_at,
        reactive_ready_at=reactive_ready,
        reactive_lead=_difference(needed_at, reactive_ready),
        serves=serves,
    )


def service_time(ticks: Sequence[Json], name: str) -> float | None:
    """The median of what the service's own sidecars measured (seconds)."""
    measured = [value for tick in ticks if (value := _of(tick, name, "service_time"))]
    return median(measured) if measured else None


def smoothed_demand(ticks: Sequence[Json], name: str) -> list[tuple[float, float]]:
    """(time, mean of the ticks before, at and after)."""
    known = [(tick["time"], value) for tick in ticks if (value := _of(tick, name, "demand")) is not None]
    values = [value for _, value in known]
    means = [sum(values[max(0, i - 1) : i + 2]) / len(values[max(0, i - 1) : i + 2]) for i in range(len(values))]
    return [(time, mean) for (time, _), mean in zip(known, means, strict=True)]


def _serves(run: Mapping[str, Any], name: str, count: int) -> float | None:
    """Requests per second that ``count`` replicas serve at the target utilisation."""
    time = service_time(run["ticks"], name)
    concurrency = run["config"]["services"][name]["concurrency"]
    return None if time is None else float(count * concurrency / time * run["config"]["target_utilization"])


def _first(
    series: Sequence[tuple[float, float | None]], window: tuple[float, float], threshold: float | None
) -> float | None:
    """The first time within the window at which the value exceeds the threshold."""
    if threshold is None:
        return None
    low, high = window
    return next((t for t, value in series if low <= t <= high and value is not None and value > threshold), None)


def _of(tick: Json, name: str, field: str) -> Any:
    return (tick["services"].get(name) or {}).get(field)


def _difference(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier
