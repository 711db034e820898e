"""Small charts as SVG text: lines, bands, stacked areas, axes. Pure; colours are classes that the page's style defines.

Every text is escaped here, so a chart may carry any name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from forecasting.series import BoolArray, FloatArray

Numbers = Sequence[float] | FloatArray

LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 24.0, 26.0
"""Margins in pixels: labels of the y axis, nothing, the title, labels of the x axis."""

COLOURS = 8
"""Classes c0 to c7; more lines begin again."""

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""What two ticks may be apart, times a power of ten."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A chart of ``width`` by ``height`` pixels that shows ``x`` and ``y``, each (low, high)."""

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 960.0
    height: float = 260.0

    def across(self, value: float) -> float:
        """The pixel of an x."""
        return LEFT + _share(value, self.x) * (self.width - LEFT - RIGHT)

    def up(self, value: float) -> float:
        """The pixel of a y; what lies outside is drawn at the edge."""
        share = min(1.0, max(0.0, _share(value, self.y)))
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)


def chart(frame: Frame, marks: Sequence[str], labels: Iterable[tuple[float, str]]) -> str:
    """The whole picture; ``labels`` stand under the x axis, each at its x."""
    title = escape(frame.title)
    head = f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" aria-label="{title}">'
    name = f'<text class="title" x="{LEFT:g}" y="14">{title}</text>'
    return "".join([head, name, *_y_axis(frame), *_x_axis(frame, labels), *marks, "</svg>"])


def line(frame: Frame, x: Numbers, y: Numbers, kind: str) -> str:
    """A line through the known points, broken where ``y`` is NaN; a lone point is a dot."""
    table = np.array([x, y], dtype=np.float64)
    runs = (table[:, part] for part in _runs(table))
    return "".join(_dot(frame, a[0], b[0], kind) if len(a) == 1 else _line(frame, a, b, kind) for a, b in runs)


def band(frame: Frame, x: Numbers, low: Numbers, high: Numbers, kind: str) -> str:
    """The area between two lines, left out where either is NaN."""
    table = np.array([x, low, high], dtype=np.float64)
    found = []
    for part in _runs(table):
        across, under, over = table[:, part]
        edge = _points(frame, np.concatenate([across, across[::-1]]), np.concatenate([over, under[::-1]]))
        found.append(f'<polygon class="{kind}" points="{edge}"/>')
    return "".join(found)


def level(frame: Frame, value: float, kind: str) -> str:
    """A horizontal line over the whole width."""
    return _line(frame, np.array(frame.x), np.array([value, value]), kind)


def legend(names: Sequence[str]) -> str:
    """Names beside the colours that they have, as HTML."""
    items = (f'<li class="c{index % COLOURS}"><i></i>{escape(name)}</li>' for index, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in STEPS if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def extent(values: Sequence[float], *, least: float = 0.0) -> tuple[float, float]:
    """From ``least`` to a little above the largest known value; never empty."""
    known = [value for value in values if math.isfinite(value)]
    top = max(known, default=least + 1.0)
    return least, top + 0.05 * (top - least) if top > least else least + 1.0


def _share(value: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return (value - low) / (high - low) if high > low else 0.5


def _runs(table: FloatArray) -> Iterator[slice]:
    """The stretches of columns without a NaN."""
    known: BoolArray = np.asarray(np.isfinite(table).all(axis=0))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        yield slice(int(begin), int(end))


def _points(frame: Frame, x: FloatArray, y: FloatArray) -> str:
    return " ".join(f"{frame.across(a):.1f},{frame.up(b):.1f}" for a, b in zip(x, y, strict=True))


def _line(frame: Frame, x: FloatArray, y: FloatArray, kind: str) -> str:
    return f'<polyline class="{kind}" points="{_points(frame, x, y)}"/>'


def _dot(frame: Frame, x: float, y: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{frame.across(x):.1f}" cy="{frame.up(y):.1f}" r="1.5"/>'


def _y_axis(frame: Frame) -> Iterator[str]:
    for value in ticks(*frame.y, most=5):
        at = frame.up(value)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{frame.width - RIGHT:g}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text class="tick" text-anchor="end" x="{LEFT - 6:g}" y="{at + 4:.1f}">{value:.4g}</text>'


def _x_axis(frame: Frame, labels: Iterable[tuple[float, str]]) -> Iterator[str]:
    for value, text in labels:
        at, base = frame.across(value), frame.height - BOTTOM
        yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{base:g}" y2="{base + 4:g}"/>'
        yield f'<text class="tick" text-anchor="middle" x="{at:.1f}" y="{base + 16:g}">{escape(text)}</text>'
