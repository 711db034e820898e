"""The report as one HTML page that needs nothing else: text, tables, pictures inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from . import plots

Json = dict[str, Any]
#: Kinds of events that the page lists; pushes are counted only.
LISTED = frozenset({"scale", "fault", "nack", "config", "model", "drift", "experiment", "control", "platform"})

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1060px;margin:2em auto;padding:0 1em;color:#222}
h1,h2{line-height:1.2}h2{margin-top:2em;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:.6em 0}th,td{padding:.2em .8em;text-align:right;border-bottom:1px solid #eee}
th:first-child,td:first-child{text-align:left}td.text,th.text{text-align:left}
.ok{color:#007a53}.bad{color:#b34700;font-weight:600}.note{color:#555}svg{max-width:100%;height:auto}
"""

_REACTIVE = ("Reactive asked", "Reactive ready", "Reactive lead")
_SCALE_UPS_NOTE = """<p class="note">Seconds since the load began. <b>Needed</b>: when demand (mean of three ticks)
first exceeded what the previous number of replicas serves at the target utilisation. <b>Lead</b>: needed minus ready;
negative is late. <b>Reactive</b>: when the formula of the Kubernetes HPA, alone and on the same measurements, would
have
asked, and have had the replica ready with the same time to start.</p>"""
_FORECASTS_NOTE = """<p class="note">One tick ahead. WAPE: sum of errors over sum of demand, beside that of last value.
Coverage: the share of ticks under the 95 % quantile. Skilled: the share of ticks at which the forecast might
act.</p>"""


def render(report: Mapping[str, Any]) -> str:
    """The page of :func:`meshctl.demo.report.summarize`'s result."""
    run, facts = report["run"], report["summary"]
    parts = [
        f"<h1>meshctl demo: {escape(run['config']['name'])}</h1>",
        _verdict(report),
        _overview(run, facts),
        "<h2>Scale-ups</h2>",
        _scale_ups(run, facts["scale_ups"]),
        "<h2>Forecast, replicas, latency, limits</h2>",
        *(plots.service_picture(run, name) for name in _by_traffic(run)),
        "<h2>Forecasts against what came</h2>",
        _forecasts(facts["forecasts"]),
        "<h2>Load</h2>",
        plots.load_picture(run),
        "<h2>Experiment</h2>",
        _experiment(facts["experiment"]),
        "<h2>What it cost</h2>",
        _usage(facts["usage"]),
        plots.cpu_picture(run),
        "<h2>Events</h2>",
        _events(run),
    ]
    title = f"<title>meshctl demo: {escape(run['config']['name'])}</title>"
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8">{title}<style>{_STYLE}</style></head>'
    return f"{head}<body>{chr(10).join(parts)}</body></html>\n"


def _verdict(report: Mapping[str, Any]) -> str:
    if report["ok"]:
        text = "The mesh ran as meant: every sidecar connected, no configuration rejected, load finished."
        return f'<p class="ok">{text}</p>'
    items = "".join(f"<li>{escape(problem)}</li>" for problem in report["problems"])
    return f'<p class="bad">The mesh did not run as meant:</p><ul>{items}</ul>'


def _overview(run: Json, facts: Json) -> str:
    load, slo, control, xds = facts["load"], facts["slo"], facts["control"], facts["xds"]
    objective = slo["objective"]
    rows = [
        ("Policy", facts["policy"]),
        ("Trace", f"{run['trace']['file']} from {run['trace']['from']}, {run['options']['speedup']:g} times as fast"),
        (
            "Requests",
            f"{load.get('sent', 0)} sent, {load.get('ok', 0)} answered by 200, errors {load.get('errors') or 'none'}",
        ),
        ("Late starts of the generator", load.get("late")),
        ("Latency p50, p95, p99", ", ".join(_seconds(load.get(key)) for key in ("p50", "p95", "p99"))),
        (
            "Objective",
            f"{objective['availability']:g} % available: {_number(slo['availability'], 2)} % {_yes(slo['available'])};"
            f" {objective['percentile']:g} % within {_seconds(objective['latency'])}: {_yes(slo['fast'])}",
        ),
        ("Sidecars connected", f"{facts['sidecars']['connected']} of {facts['sidecars']['expected']}"),
        ("Pushes", _counts(xds["pushes"])),
        ("ACKs", _counts(xds["acks"])),
        ("NACKs", _counts(xds["nacks"])),
        ("Lease heartbeats", xds["heartbeats"]),
        (
            "Ticks",
            f"{control['ticks']}, p50 {_number(control['tick_p50_ms'])} ms, p99 {_number(control['tick_p99_ms'])} ms",
        ),
        ("Forecasts", control["forecasts"]),
        ("Decisions", _counts(control["decisions"])),
        ("Starts of the control plane", facts["control_plane_starts"]),
        ("Replicas lost", facts["replicas_lost"]),
    ]
    return _table(("", ""), rows, text={1})


def _scale_ups(run: Json, steps: Sequence[Json]) -> str:
    if not steps:
        return "<p>No service was scaled up.</p>"
    head = ("Service", "Replicas", "Asked", "Ready", "Needed", "Lead", "Verdict", *_REACTIVE)
    rows = [
        (
            step["service"],
            f"{step['previous']} to {step['replicas']}",
            *(_since(run, step[key]) for key in ("asked_at", "ready_at", "needed_at")),
            _signed(step["lead"]),
            step["verdict"],
            *(_since(run, step[key]) for key in ("reactive_asked_at", "reactive_ready_at")),
            _signed(step["reactive_lead"]),
        )
        for step in steps
    ]
    return _SCALE_UPS_NOTE + _table(head, rows)


def _forecasts(found: Mapping[str, Json]) -> str:
    head = ("Service", "Ticks", "WAPE", "WAPE of last value", "Coverage of 95 %", "Skilled")
    keys = ("wape", "wape_last_value", "coverage_95", "skilled_share")
    return _FORECASTS_NOTE + _table(
        head, [(name, row["steps"], *(_percent(row[key]) for key in keys)) for name, row in found.items()]
    )


def _experiment(found: Json | None) -> str:
    if found is None:
        return "<p>None was asked for.</p>"
    if error := found.get("error"):
        return f'<p class="bad">It did not run:</p><pre>{escape(str(error))}</pre>'
    result = found.get("result") or {}
    rows = [
        ("Title", found.get("title")),
        ("Status", found.get("status")),
        ("Reason", result.get("reason")),
        ("Score", f"{_number(found.get('score'))} of 100, at least {_number(result.get('score_lower'))}"),
        *((item.get("statement"), _yes(item.get("holds"))) for item in result.get("findings") or []),
    ]
    return _table(("", ""), rows, text={1})


def _usage(usage: Json) -> str:
    whole = (
        f"<p>All processes together used {usage['cores']:.2f} cores on average over {usage['seconds']:.0f} s:"
        f" {usage['share_of_two_cores']:.0%} of two cores, {usage['share_of_machine']:.0%} of this machine"
        f" ({usage['machine_cores']} cores).</p>"
    )
    rows = [
        (
            name,
            f"{book['cores']:.3f}",
            f"{book['share_of_two_cores']:.1%}",
            f"{book['memory'] / 2**20:.0f}",
            f"{book['memory_peak'] / 2**20:.0f}",
        )
        for name, book in usage["components"].items()
    ]
    return whole + _table(("Component", "Cores", "Of two cores", "Memory at the end, MiB", "Largest, MiB"), rows)


def _events(run: Json) -> str:
    listed = [event for event in run["events"] if event["kind"] in LISTED]
    notes = [{**note, "kind": "process"} for note in run["notes"] if note["time"] >= run["began"]]
    rows = [
        (_since(run, event["time"]), event["kind"], event["subject"], event["message"])
        for event in sorted([*listed, *notes], key=lambda event: float(event["time"]))
    ]
    return _table(("Second", "Kind", "Subject", "What"), rows, text={1, 2, 3})


def _by_traffic(run: Json) -> list[str]:
    return sorted(
        run["config"]["services"], key=lambda name: (name != run["config"]["entry"], -run["config"]["visits"][name])
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], text: frozenset[int] | set[int] = frozenset()) -> str:
    lines = [_row("th", head, text)] if any(head) else []
    return f"<table>{''.join([*lines, *(_row('td', row, text) for row in rows)])}</table>"


def _row(tag: str, cells: Sequence[object], text: frozenset[int] | set[int]) -> str:
    return "<tr>" + "".join(_cell(tag, cell, index in text) for index, cell in enumerate(cells)) + "</tr>"


def _cell(tag: str, value: object, text: bool) -> str:
    kind = ' class="text"' if text else ""
    return f"<{tag}{kind}>{escape('-' if value is None else str(value))}</{tag}>"


def _since(run: Json, moment: float | None) -> str:
    return "-" if moment is None else f"{moment - run['began']:.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.0f} ms"


def _yes(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def _counts(table: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in table.items()) or "0"
