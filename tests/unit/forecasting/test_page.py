"""The page of a backtest: whole, self-contained, well-formed, with every name escaped; and the charts on it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES
from forecasting.evaluate import svg
from forecasting.evaluate.backtest import origins
from forecasting.evaluate.contest import Outcome
from forecasting.evaluate.page import render
from forecasting.evaluate.report import Report, Settings, evaluate, series_report
from forecasting.evaluate.svg import Frame
from tests.unit.forecasting.conftest import Make, Wave

NAN = float("nan")
EVIL = '<script>alert("x")</script>&'
VOID = {"meta", "line", "polyline", "polygon", "circle"}


class Structure(HTMLParser):
    """Every tag that was opened is closed, in order; collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def weighted(make: Make, wave: Wave, name: str = "shop") -> Report:
    """One series, last value with residuals beside a mixture of two members."""
    series = make(wave(2500), name=name)
    counts = origins(2500, 12)
    actual = np.lib.stride_tricks.sliding_window_view(series.values, 12)[counts]
    values = actual[:, :, None] + np.array([-9.0, 1.0, 6.0, 8.0, 12.0])
    mixture = Outcome(values, 0.5, np.tile([0.25, 0.75], (len(counts), 1)), (f"ewma{name}", "linear"))
    known = evaluate(Settings(("last+residuals",)), series)
    scored = series_report(series, counts, 12, {f"mixture{name}": mixture})
    return Report(12, (replace(known, models=known.models + scored.models),))


def pictures(page: str) -> list[ElementTree.Element]:
    """Every picture, read as XML: a chart that is not well-formed fails here."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def titled(page: str, begin: str) -> ElementTree.Element:
    return next(one for one in pictures(page) if one.attrib["aria-label"].startswith(begin))


def points(element: ElementTree.Element) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([pair.split(",") for pair in element.attrib["points"].split()], dtype=np.float64)


@pytest.fixture
def page(make: Make, wave: Wave) -> str:
    return render(weighted(make, wave), "Backtest of the shop")


def test_the_page_is_well_formed_and_complete(page: str) -> None:
    found = Structure(page)
    assert found.open == []
    assert found.tags.count("table") == 2
    labels = [one.attrib["aria-label"] for one in pictures(page)]
    assert labels[0].startswith("Newest values, and what mixtureshop said")
    assert labels[1] == "WAPE by steps ahead"
    assert [label[:10] for label in labels[2:8]] == ["Covered by"] * 6
    assert labels[8] == "Weights of mixtureshop"


def test_the_page_needs_nothing_else(page: str) -> None:
    found = Structure(page)
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(found.tags)
    assert not {"src", "href", "xlink:href", "onload", "action"} & {name for name, _ in found.attributes}
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "@import" not in page


def test_names_are_escaped_everywhere(make: Make, wave: Wave) -> None:
    page = render(weighted(make, wave, name=EVIL), EVIL)
    found = Structure(page)
    assert "script" not in found.tags
    assert found.open == []
    assert any(EVIL in word for word in found.words)
    assert titled(page, f"Weights of mixture{EVIL}") is not None


def test_light_and_dark_define_the_same_colours(page: str) -> None:
    assert "color-scheme:light dark" in page
    light, dark = re.findall(r":root\{(.*?)\}", page)
    defined = [set(re.findall(r"(--\w+):", part)) for part in (light, dark)]
    used = set(re.findall(r"var\((--\w+)\)", page))
    assert used <= defined[0] | {"--c"}
    assert defined[1] <= defined[0]
    assert {"--bg", "--fg", "--soft", "--rule"} <= defined[1]


def test_the_fan_chart_has_bands_medians_and_what_came(page: str) -> None:
    chart = titled(page, "Newest values")
    kinds = [element.attrib.get("class") for element in chart]
    assert kinds.count("fan") == 3 * kinds.count("median")
    assert kinds.count("median") > 5
    assert kinds.count("actual") == 1


def test_weights_are_stacked_to_one(page: str) -> None:
    first, second = (points(one) for one in titled(page, "Weights") if one.attrib.get("class", "").startswith("area"))
    assert first[:, 1].max() == pytest.approx(260 - svg.BOTTOM)
    assert first[:, 1].min() == pytest.approx(second[:, 1].max())
    assert second[:, 1].min() == pytest.approx(svg.TOP)


def test_coverage_is_drawn_against_its_nominal_line(page: str) -> None:
    chart = titled(page, "Covered by 0.9, step 5")
    nominal = [one for one in chart if one.attrib.get("class") == "nominal"]
    lines = [one for one in chart if one.attrib.get("class", "").startswith("line")]
    assert len(nominal) == 1
    assert len(set(points(nominal[0])[:, 1])) == 1
    assert {one.attrib["class"] for one in lines} == {"line c0", "line c1"}


def test_a_page_without_origins_enough_says_so(make: Make, wave: Wave) -> None:
    page = render(Report(12, (evaluate(Settings(("last", "ewma")), make(wave(300))),)))
    assert "Fewer than 200 origins" in page
    assert Structure(page).open == []


@pytest.mark.parametrize("values", [[0.0] * 200, [7.0] * 200, [NAN] * 200, [float("inf"), 1.0] * 100])
def test_any_series_has_a_page(make: Make, values: list[float]) -> None:
    page = render(Report(3, (evaluate(Settings(("last", "last+residuals", "ewma"), horizon=3), make(values)),)))
    assert Structure(page).open == []
    assert not re.search(r'"[^"]*\bnan\b[^"]*"', page)
    assert pictures(page)


def test_the_fan_of_a_model_without_quantiles_is_drawn_only_where_there_is_no_other(make: Make, wave: Wave) -> None:
    series, counts = make(wave(2500)), origins(2500, 12)
    mute = np.full((len(counts), 12, len(QUANTILES)), NAN)
    mute[..., MEDIAN] = 50.0
    (median_only,) = series_report(series, counts, 12, {"median-only": Outcome(mute, 0.1)}).models
    (one,) = weighted(make, wave).series
    both = Report(12, (replace(one, models=(median_only, *one.models)),))
    alone = Report(12, (replace(one, models=(median_only,)),))
    assert "mixtureshop" in titled(render(both), "Newest values").attrib["aria-label"]
    chart = titled(render(alone), "Newest values")
    assert {element.attrib.get("class") for element in chart} & {"fan", "median"} == {"median"}


@pytest.mark.parametrize(
    ("step", "expected"),
    [(60.0, r"\d\d-\d\d \d\d:\d0$"), (300.0, r"\d\d-\d\d (00|12):00$"), (7200.0, r"\d{4}-\d\d-\d\d$")],
)
def test_times_are_round(make: Make, wave: Wave, step: float, expected: str) -> None:
    series = replace(make(wave(2500), start=1.7e9), step=step, season=288)
    found = titled(render(Report(12, (evaluate(Settings(("last",)), series),))), "Newest")
    labels = [one.text or "" for one in found if one.attrib.get("text-anchor") == "middle"]
    assert 2 <= len(labels) <= 8
    assert all(re.match(expected, label) for label in labels), labels


# -- charts --

FRAME = Frame("t", (0, 10), (0, 100), width=svg.LEFT + svg.RIGHT + 100, height=svg.TOP + svg.BOTTOM + 100)


def test_a_frame_maps_corners_to_the_edges() -> None:
    assert (FRAME.across(0), FRAME.across(10)) == (svg.LEFT, svg.LEFT + 100)
    assert (FRAME.up(0), FRAME.up(100)) == (svg.TOP + 100, svg.TOP)
    assert FRAME.up(250) == svg.TOP


def test_a_line_breaks_at_gaps_and_a_lone_point_is_a_dot() -> None:
    text = svg.line(FRAME, range(6), [1.0, 2.0, NAN, 3.0, NAN, NAN], "k")
    assert text.count("<polyline") == 1
    assert text.count("<circle") == 1
    assert svg.line(FRAME, range(2), [NAN, NAN], "k") == ""


def test_a_band_runs_along_the_top_and_back_along_the_bottom() -> None:
    text = svg.band(FRAME, [0, 10], [0, 0], [100, 50], "k")
    corners = points(ElementTree.fromstring(text))
    assert corners[:, 0].tolist() == [58, 158, 158, 58]
    assert corners[:, 1].tolist() == [24, 74, 124, 124]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3, 3, [3]), (7, 11, [7, 8, 9, 10, 11])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("high", [1e-9, 0.37, 5.0, 1234.5, 9e14])
def test_ticks_are_few_and_inside(high: float) -> None:
    found = svg.ticks(0.0, high)
    assert 2 <= len(found) <= 6
    assert max(found) <= high * (1 + 1e-6)


@pytest.mark.parametrize("values", [[], [NAN], [0.0], [5.0, NAN, 2.0]])
def test_an_extent_is_never_empty(values: list[float]) -> None:
    low, high = svg.extent(values)
    assert high > low


def test_the_legend_escapes_and_repeats_colours() -> None:
    text = svg.legend(["<a>", *map(str, range(8))])
    assert "&lt;a&gt;" in text
    assert text.count('class="c0"') == 2
