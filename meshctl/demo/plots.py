"""Pictures of a run as SVG text. Figures are drawn without pyplot, so nothing here has global state.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .leadtime import scale_ups, service_time

Json = dict[str, Any]
BLUE, ORANGE, GREEN, RED, GREY, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7f7f7f", "#56B4E9"
#: Kinds of events that are marked in the pictures, and how.
MARKED = {"fault": RED, "nack": RED, "experiment": GREY}


def service_picture(run: Mapping[str, Any], name: str) -> str:
    """Demand and forecast, replicas, and for the entry also latency and limits; SVG."""
    figure = Figure(figsize=(10, 9), layout="constrained")
    forecast, replicas, latency, limit = figure.subplots(4, 1, sharex=True, height_ratios=[3, 1.6, 1.6, 1.4])
    times, rows = _rows(run, name)
    _forecast(forecast, run, name, times, rows)
    _replicas(replicas, run, name, times, rows)
    _latency(latency, run, name, times, rows)
    _limit(limit, times, rows)
    for axes in (forecast, replicas, latency, limit):
        _mark(axes, run)
        axes.grid(alpha=0.25)
        axes.set_xlim(0.0, max([*times, float(run["options"]["duration"])]))
    limit.set_xlabel("seconds since the load began")
    return _svg(figure)


def load_picture(run: Mapping[str, Any]) -> str:
    """What the load generator offered, what was answered, and how fast; SVG."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    rate, latency = figure.subplots(2, 1, sharex=True)
    lines = run["load_lines"]
    times = [line["time"] - run["began"] for line in lines]
    rate.plot(times, [line["scheduled"] for line in lines], color=BLUE, lw=1, label="offered")
    rate.plot(times, [line["ok"] for line in lines], color=GREEN, lw=1, label="answered by 200")
    rate.plot(times, [sum(line["errors"].values()) for line in lines], color=RED, lw=1, label="errors")
    rate.set_ylabel("requests/s")
    for key, colour in (("p50", BLUE), ("p99", RED)):
        latency.plot(times, [_ms(line[key]) for line in lines], color=colour, lw=1, label=key)
    latency.set_ylabel("latency from due, ms")
    latency.set_xlabel("seconds since the load began")
    for axes in (rate, latency):
        _mark(axes, run)
        axes.grid(alpha=0.25)
        axes.legend(loc="upper left", fontsize=8)
    return _svg(figure)


def cpu_picture(run: Mapping[str, Any]) -> str:
    """Average cores by component; SVG."""
    components: Mapping[str, Json] = run["usage"]["components"]
    figure = Figure(figsize=(10, 0.6 + 0.32 * max(1, len(components))), layout="constrained")
    axes = figure.subplots()
    names = sorted(components, key=lambda name: float(components[name]["cores"]))
    bars = axes.barh(names, [components[name]["cores"] for name in names], color=SKY)
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set_xlabel("cores, average over the load")
    return _svg(figure)


def _rows(run: Mapping[str, Any], name: str) -> tuple[list[float], list[Json]]:
    ticks = [tick for tick in run["ticks"] if name in tick["services"]]
    return [tick["time"] - run["began"] for tick in ticks], [tick["services"][name] for tick in ticks]


def _forecast(axes: Axes, run: Mapping[str, Any], name: str, times: list[float], rows: list[Json]) -> None:
    """A forecast made at a tick is drawn at the tick that it is about."""
    tick = run["config"]["tick"]
    next_times = [time + tick for time in times]
    expected, upper = _column(rows, "expected"), _column(rows, "upper")
    axes.fill_between(next_times, expected, upper, color=ORANGE, alpha=0.25, lw=0, label="median to 95 % quantile")
    axes.plot(next_times, expected, color=ORANGE, lw=1.2, label="forecast (median, one tick ahead)")
    axes.plot(times, _column(rows, "demand"), color=BLUE, lw=1.4, label="demand")
    axes.plot(times, _column(rows, "peak"), color=RED, lw=0.8, ls=":", label="peak within the start-up time")
    if time := service_time(run["ticks"], name):
        one = run["config"]["services"][name]["concurrency"] / time * run["config"]["target_utilization"]
        ready = [(row["ready"] or 0) * one for row in rows]
        axes.step(times, ready, where="post", color=GREEN, lw=1, label="served at target utilisation")
    axes.set_ylabel("requests/s")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize=8)
    axes.set_title(name, loc="left")


def _replicas(axes: Axes, run: Mapping[str, Any], name: str, times: list[float], rows: list[Json]) -> None:
    axes.step(times, _column(rows, "hpa"), where="post", color=GREY, lw=1, ls="--", label="reactive rule alone")
    axes.step(times, _column(rows, "desired"), where="post", color=ORANGE, lw=1.2, label="desired")
    axes.step(times, _column(rows, "ready"), where="post", color=GREEN, lw=1.8, label="ready")
    for step in scale_ups(run):
        if step.service == name and step.needed_at is not None:
            axes.plot([step.needed_at - run["began"]], [step.replicas], "v", color=RED, ms=6)
    axes.plot([], [], "v", color=RED, label="needed")
    axes.set_ylabel("replicas")
    axes.set_ylim(0, run["config"]["services"][name]["max"] + 0.6)
    axes.legend(loc="upper left", fontsize=8, ncols=4)


def _latency(axes: Axes, run: Mapping[str, Any], name: str, times: list[float], rows: list[Json]) -> None:
    for key, colour in (("p50", BLUE), ("p99", RED)):
        axes.plot(times, [_ms(row.get(key)) for row in rows], color=colour, lw=1, label=key)
    axes.axhline(
        run["config"]["services"][name]["slo_latency"] * 1000.0, color=GREY, lw=0.8, ls="--", label="objective"
    )
    axes.set_ylabel("latency, ms")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize=8, ncols=3)


def _limit(axes: Axes, times: list[float], rows: list[Json]) -> None:
    axes.step(times, _column(rows, "limit"), where="post", color=ORANGE, lw=1.2, label="limit of its callers together")
    axes.plot(times, _column(rows, "in_flight"), color=BLUE, lw=1, label="in flight")
    axes.set_ylabel("requests")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize=8, ncols=2)


def _mark(axes: Axes, run: Mapping[str, Any]) -> None:
    for event in run["events"]:
        if (colour := MARKED.get(event["kind"])) and event["time"] >= run["began"]:
            axes.axvline(event["time"] - run["began"], color=colour, lw=0.7, alpha=0.6)


def _column(rows: Sequence[Json], key: str) -> list[float]:
    return [float("nan") if row.get(key) is None else float(row[key]) for row in rows]


def _ms(seconds: float | None) -> float:
    return float("nan") if seconds is None else seconds * 1000.0


def _svg(figure: Figure) -> str:
    """Only the ``<svg>`` element: no XML prologue, no date."""
    FigureCanvasSVG(figure)  # type: ignore[no-untyped-call,unused-ignore]
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
