"""A backtest as one HTML page that needs nothing else: no script, no font, no address. Pure.

It is readable in light and dark: the pictures take their colours (Okabe & Ito, https://jfly.uni-koeln.de/color/, told
apart by colour-blind readers) from the page's style.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import accumulate
from typing import Any

import numpy as np

from forecasting.base import MEDIAN, QUANTILES
from forecasting.evaluate import svg
from forecasting.evaluate.report import CoverageCurve, ModelReport, Report, SeriesReport, WeightCurves
from forecasting.evaluate.stats import WINDOW
from forecasting.evaluate.svg import Frame
from forecasting.series import FloatArray

BANDS = ((0.05, 0.99), (0.05, 0.95), (0.05, 0.9))
"""Quantiles between which the fan is filled, widest first."""

_DAY = 86_400.0
APART = (
    *(1.0, 5.0, 15.0, 60.0, 300.0, 900.0),
    *(3600.0 * hours for hours in (1, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 30, 90)),
)
"""What two labels of a time axis may be apart, seconds."""

SMALL = 470.0
"""Width of charts that stand side by side, pixels."""

_LIGHT = "--bg:#fff;--fg:#222;--soft:#666;--rule:#ddd;--c1:#d55e00;--c2:#0072b2;--c3:#009e73;--c4:#cc79a7;--c5:#e69f00;"
_DARK = "--bg:#16181c;--fg:#eee;--soft:#aaa;--rule:#444;--c1:#ff8a3d;--c2:#5bb5f0;--c3:#3fd0a2;--c4:#e8a2c8;--c5:#fc4;"
_STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}--c0:#7f7f7f;--c6:#56b4e9;--c7:#a6761d}}
@media(prefers-color-scheme:dark){{:root{{{_DARK}--c0:#9a9a9a}}}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;
background:var(--bg);color:var(--fg)}}
h1,h2{{line-height:1.2;overflow-wrap:anywhere}}h2{{margin-top:2em;border-bottom:1px solid var(--rule)}}
.note{{color:var(--soft)}}.wide{{overflow-x:auto}}
table{{border-collapse:collapse;margin:.6em 0;font-size:13px}}
th,td{{padding:.2em .7em;text-align:right;border-bottom:1px solid var(--rule)}}
th:first-child,td:first-child{{text-align:left}}
svg{{width:100%;height:auto}}.pair{{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr))}}
svg text{{fill:var(--fg);font-size:12px}}svg text.title{{font-weight:600}}svg text.tick{{fill:var(--soft)}}
.grid{{stroke:var(--rule)}}polyline{{fill:none;stroke-width:1.5}}
polyline.actual{{stroke:var(--fg);stroke-width:1}}circle.actual{{fill:var(--fg)}}
polyline.median{{stroke:var(--c1)}}circle.median{{fill:var(--c1)}}
polyline.nominal{{stroke:var(--fg);stroke-dasharray:5 4}}.fan{{fill:var(--c2);opacity:.22}}
.legend{{list-style:none;padding:0;margin:.2em 0;display:flex;flex-wrap:wrap;gap:.2em 1.2em;font-size:13px}}
.legend i{{display:inline-block;width:1em;height:.7em;margin-right:.4em;background:var(--c)}}
polyline.line{{stroke:var(--c)}}circle.line{{fill:var(--c)}}polygon.area{{fill:var(--c);opacity:.8}}
{"".join(f".c{index}{{--c:var(--c{index})}}" for index in range(svg.COLOURS))}
"""

_NOTE = f"""<p class="note">Relative WAPE: the error of the median as a share of last value's. MASE and pinball losses
are in units of the series' mean change per step, before the first origin. Relative pinball: as a share of last value
with its own residuals. Covered: the share of values at or below the quantile, on average and in the worst {WINDOW}
consecutive origins. The summary is the geometric mean over series, but the worst window, which is the worst of all,
and the seconds, which are the sum.</p>"""

_HEAD = {
    "model": "Model",
    "step": "Step",
    "wape": "WAPE",
    "relative_wape": "Relative",
    "mase": "MASE",
    "pinball_90": "Pinball .9",
    "relative_pinball_90": "Relative",
    "coverage_90": "Covered .9",
    "worst_window_90": "Worst",
    "pinball_99": "Pinball .99",
    "relative_pinball_99": "Relative",
    "coverage_99": "Covered .99",
    "worst_window_99": "Worst",
    "seconds": "Seconds",
}


def render(report: Report, title: str = "Backtest") -> str:
    """The whole page."""
    rows = report.rows()
    parted = {one.name: [row for row in rows if row["name"] == one.name] for one in report.series}
    over_all = rows[sum(map(len, parted.values())) :]
    parts = [
        f"<h1>{escape(title)}</h1>",
        _NOTE,
        f"<h2>All {len(report.series)} series</h2>",
        _table(over_all),
        *(_section(one, parted[one.name], report.horizon) for one in report.series),
    ]
    return _head(title) + f"<body>{chr(10).join(parts)}</body></html>\n"


def _head(title: str) -> str:
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    view = '<meta name="viewport" content="width=device-width,initial-scale=1">'
    named = f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head><meta charset="utf-8">{policy}{view}{named}</head>'


def _section(one: SeriesReport, rows: Sequence[Mapping[str, Any]], horizon: int) -> str:
    names = [model.model for model in one.models]
    facts = (
        f"{one.length} values of {one.step:g} s, {one.gaps} gaps, {one.season} steps a day, "
        f"{one.origins} origins, {horizon} steps ahead"
    )
    parts = [
        f'<h2>{escape(one.name)}</h2><p class="note">{facts}</p>',
        _table(rows),
        *(_fan(one, model) for model in _best(one)),
        svg.legend(names),
        _profile(one),
        _coverage(one),
        *(_weights(one, model.model, model.weights) for model in one.models if model.weights is not None),
    ]
    return "\n".join(parts)


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{text}</th>" for text in _HEAD.values())
    lines = ("".join(f"<td>{_cell(row.get(key))}</td>" for key in _HEAD) for row in rows)
    body = "".join(f"<tr>{cells}</tr>" for cells in lines)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else escape(str(value))


# -- pictures --


def _best(one: SeriesReport) -> list[ModelReport]:
    """The model that is drawn: of those that told quantiles, the one with the smallest relative pinball loss."""

    def loss(model: ModelReport) -> float:
        return float(np.nan_to_num(np.mean([upper.relative_pinball for upper in model.scores[-1].upper]), nan=np.inf))

    return sorted((model for model in one.models if model.scores and model.fans), key=loss)[:1]


def _fan(one: SeriesReport, model: ModelReport) -> str:
    """What came, and over it what was said at origins whose steps do not overlap."""
    first = one.length - len(one.recent)
    seen = [*one.recent, *(value for fan in model.fans for row in fan.values for value in row)]
    title = f"Newest values, and what {model.model} said: median, .05 to .9, .95 and .99"
    frame = Frame(title, (first, max(one.length - 1, first + 1)), svg.extent(seen))
    marks = [_bands(frame, fan.origin, np.array(fan.values)) for fan in model.fans]
    marks.append(svg.line(frame, range(first, one.length), one.recent, "actual"))
    for fan in model.fans:
        steps = range(fan.origin, fan.origin + len(fan.values))
        marks.append(svg.line(frame, steps, [row[MEDIAN] for row in fan.values], "median"))
    return svg.chart(frame, marks, _times(one, frame))


def _bands(frame: Frame, origin: int, values: FloatArray) -> str:
    steps = range(origin, origin + len(values))
    pairs = ((values[:, QUANTILES.index(low)], values[:, QUANTILES.index(high)]) for low, high in BANDS)
    return "".join(svg.band(frame, steps, low, high, "fan") for low, high in pairs)


def _profile(one: SeriesReport) -> str:
    """The WAPE of every model by steps ahead."""
    profiles = [model.profile for model in one.models]
    steps = range(1, 1 + max(map(len, profiles), default=1))
    frame = Frame(
        "WAPE by steps ahead", (1, max(2, len(steps))), svg.extent([value for row in profiles for value in row])
    )
    marks = [svg.line(frame, steps, row, _colour("line", index)) for index, row in enumerate(profiles)]
    return svg.chart(frame, marks, [(value, f"{value:g}") for value in svg.ticks(*frame.x, most=12)])


def _coverage(one: SeriesReport) -> str:
    """One picture for every step and quantile: rolling coverage of every model, and the line that it should reach."""
    kinds = dict.fromkeys((curve.step, curve.quantile) for model in one.models for curve in model.coverage)
    charts = []
    for kind in kinds:
        curves = [c for model in one.models for c in model.coverage if (c.step, c.quantile) == kind]
        if any(curve.at for curve in curves):
            charts.append(_coverage_chart(one, kind, curves))
    if not charts:
        return f'<p class="note">Fewer than {WINDOW} origins: no coverage over time.</p>'
    return f'<div class="pair">{"".join(charts)}</div>'


def _coverage_chart(one: SeriesReport, kind: tuple[int, float], curves: Sequence[CoverageCurve]) -> str:
    step, quantile = kind
    ends = [at for curve in curves for at in curve.at]
    low = min(quantile - 0.05, *(value for curve in curves for value in curve.values))
    title = f"Covered by {quantile:g}, step {step}, last {WINDOW} origins"
    frame = Frame(title, (min(ends), max(*ends, min(ends) + 1)), (low, 1.0), SMALL, 190.0)
    lines = [svg.line(frame, curve.at, curve.values, _colour("line", index)) for index, curve in enumerate(curves)]
    return svg.chart(frame, [svg.level(frame, quantile, "nominal"), *lines], _times(one, frame))


def _weights(one: SeriesReport, name: str, curves: WeightCurves) -> str:
    """Stacked: how much of the mixture each member is."""
    frame = Frame(f"Weights of {name}", (curves.at[0], max(curves.at[-1], curves.at[0] + 1)), (0.0, 1.0))
    edges = np.array([[0.0, *accumulate(row)] for row in curves.values])  # (N, M + 1)
    marks = [
        svg.band(frame, curves.at, edges[:, index], edges[:, index + 1], _colour("area", index))
        for index in range(len(curves.members))
    ]
    return svg.legend(curves.members) + svg.chart(frame, marks, _times(one, frame))


def _colour(kind: str, index: int) -> str:
    return f"{kind} c{index % svg.COLOURS}"


def _times(one: SeriesReport, frame: Frame) -> Iterator[tuple[float, str]]:
    """Round times in UTC under the numbers of the values that they are, as many as the width has room for."""
    begin, end = (one.start + number * one.step for number in frame.x)
    most = max(3.0, frame.width / 130)
    apart = next((length for length in APART if (end - begin) / length <= most), (end - begin) / most)
    for count in range(math.ceil(begin / apart), math.floor(end / apart) + 1):
        yield (count * apart - one.start) / one.step, _moment(count * apart, apart)


def _moment(seconds: float, apart: float) -> str:
    """As precise as labels ``apart`` seconds from each other must be; the number itself where that is no date."""
    form = "%Y-%m-%d" if apart >= _DAY else "%m-%d %H:%M" if apart >= 60 else "%H:%M:%S"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"
