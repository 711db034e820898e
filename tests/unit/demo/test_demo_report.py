"""The report: lead times and facts reckoned by hand, and pages that hold together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from meshctl.demo import command, page, plots, report
from meshctl.demo.leadtime import scale_ups, service_time, smoothed_demand
from tests.unit.demo.demo_run import BEGAN, life, run, tick

Json = dict[str, Any]


def test_the_lead_is_needed_minus_ready() -> None:
    """Demand's mean of three ticks exceeds 10 per second at tick 5 (8, 8, 16), 10 s after the beginning."""
    (step,) = scale_ups(run())
    assert (step.previous, step.replicas) == (1, 2)
    assert step.serves == pytest.approx(10.0)
    assert (step.asked_at, step.ready_at, step.needed_at) == (BEGAN + 4, BEGAN + 9, BEGAN + 10)
    assert step.lead == pytest.approx(1.0)
    assert step.verdict == "early"


def test_the_reactive_rule_gets_the_same_time_to_start() -> None:
    (step,) = scale_ups(run())
    assert (step.reactive_asked_at, step.reactive_ready_at) == (BEGAN + 14, BEGAN + 19)
    assert step.reactive_lead == pytest.approx(-9.0)


def test_late_not_ready_and_never_needed_are_told_apart() -> None:
    late = run(replicas=[life("frontend-1", BEGAN + 4.0, BEGAN + 15.0)])
    assert scale_ups(late)[0].verdict == "late"
    assert scale_ups(late)[0].lead == pytest.approx(-5.0)
    unready = run(replicas=[life("frontend-1", BEGAN + 4.0, None, "starting")])
    assert scale_ups(unready)[0].verdict == "not ready before the end"
    quiet = run(ticks=[tick(n, 8.0) for n in range(1, 11)])
    assert (scale_ups(quiet)[0].verdict, scale_ups(quiet)[0].lead) == ("never needed", None)


def test_a_step_of_two_is_two_scale_ups_with_a_replica_each() -> None:
    events = [{"time": BEGAN + 4.0, "service": "frontend", "previous": 1, "desired": 3}]
    replicas = [life("frontend-1", BEGAN + 4.0, BEGAN + 9.0), life("frontend-2", BEGAN + 4.0, BEGAN + 9.5)]
    first, second = scale_ups(run(scale_events=events, replicas=replicas))
    assert (first.replicas, first.ready_at, second.replicas, second.ready_at) == (2, BEGAN + 9.0, 3, BEGAN + 9.5)
    assert (first.needed_at, second.needed_at) == (BEGAN + 10, None)


def test_a_need_after_the_replica_was_let_go_again_is_not_its_need() -> None:
    events = [
        {"time": BEGAN + 2.0, "service": "frontend", "previous": 1, "desired": 2},
        {"time": BEGAN + 5.0, "service": "frontend", "previous": 2, "desired": 1},
        {"time": BEGAN + 8.0, "service": "frontend", "previous": 1, "desired": 2},
    ]
    replicas = [life("frontend-1", BEGAN + 2.0, BEGAN + 4.0), life("frontend-1", BEGAN + 8.0, BEGAN + 14.0)]
    first, second = scale_ups(run(scale_events=events, replicas=replicas))
    assert (first.verdict, second.verdict) == ("never needed", "late")


def test_one_noisy_tick_is_smoothed() -> None:
    ticks = [tick(1, 3.0), tick(2, 9.0), tick(3, 3.0)]
    assert smoothed_demand(ticks, "frontend") == [(BEGAN + 2, 6.0), (BEGAN + 4, 5.0), (BEGAN + 6, 6.0)]


def test_service_time_is_the_median_of_what_was_measured() -> None:
    ticks = [tick(1, 1.0, service_time=value) for value in (0.1, None, 0.3, 0.2)]
    assert service_time(ticks, "frontend") == pytest.approx(0.2)
    assert service_time([], "frontend") is None
    assert scale_ups(run(ticks=[]))[0].needed_at is None


def test_forecasts_are_held_against_the_next_tick() -> None:
    ticks = [tick(1, 8.0), tick(2, 10.0), tick(3, 20.0), tick(7, 99.0)]
    found = report.forecast_quality(ticks, "frontend")
    assert found["steps"] == 2  # a gap makes no pair
    assert found["wape"] == pytest.approx((abs(9 - 10) + abs(11 - 20)) / 30)
    assert found["wape_last_value"] == pytest.approx((2 + 10) / 30)
    assert found["coverage_95"] == pytest.approx(0.5)
    assert found["skilled_share"] == 1.0
    assert report.forecast_quality([], "frontend")["wape"] is None


def test_counters_are_summed_over_restarts_of_the_control_plane() -> None:
    summary = report.summarize(run())["summary"]
    assert summary["xds"]["pushes"] == {"cds": 7, "eds": 2}
    assert summary["xds"]["heartbeats"] == 10
    assert summary["control"]["forecasts"] == 20
    assert summary["control"]["decisions"] == {"applied": 4, "held": 6}
    assert (summary["control"]["tick_p50_ms"], summary["control"]["tick_p99_ms"]) == (15.0, 20.0)
    assert summary["replica_seconds"] == {"frontend": pytest.approx(2.0 * (4 + 2 * 6))}


def test_the_objective_is_judged_by_what_users_saw() -> None:
    found = report.slo(run())
    assert (found["availability"], found["available"], found["fast"]) == (99.5, True, True)
    slow = report.slo(run(load={**run()["load"], "p95": 0.9, "ok": 190}))
    assert (slow["available"], slow["fast"]) == (False, False)
    assert report.slo(run(load={}))["available"] is None


def test_a_good_run_has_no_problems() -> None:
    summary = report.summarize(run())
    assert (summary["ok"], summary["problems"]) == (True, [])


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"load": {}}, "load did not finish"),
        ({"proxies": [{"node_id": "frontend-0", "connected": True}]}, "1 of 2 sidecars"),
        ({"proxies": [], "replicas": []}, "0 of 0 sidecars"),
        ({"statuses": [{"nacks": {"cds": 2}}]}, "rejected 2"),
        ({"ticks": []}, "no tick"),
        ({"experiment": {"error": "no such command"}}, "no such command"),
    ],
)
def test_what_makes_a_run_bad(changes: Json, part: str) -> None:
    found = report.problems(run(**changes))
    assert any(part in problem for problem in found), found


def test_an_experiment_that_deviated_is_a_result_and_not_a_problem() -> None:
    assert report.problems(run(experiment={"status": "deviated", "score": 51.2, "exit_code": 1})) == []


@pytest.mark.parametrize("changes", [{}, {"ticks": [], "load_lines": [], "events": []}])
def test_pictures_are_svg(changes: Json) -> None:
    recorded = run(**changes)
    for picture in (
        plots.service_picture(recorded, "frontend"),
        plots.load_picture(recorded),
        plots.cpu_picture(recorded),
    ):
        assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_is_self_contained_and_escaped() -> None:
    text = page.render(report.summarize(run()))
    assert text.count("<svg") == 3
    assert "frontend &lt;1 -&gt; 2&gt;" in text
    assert "pushed" not in text
    for outside in ("<script", "<link", 'src="', "@import"):
        assert outside not in text
    assert "ran as meant" in text
    assert "+1.0" in text
    assert "-9.0" in text
    assert "25% of two cores" in text


def test_the_page_tells_of_problems_and_experiments() -> None:
    result = {
        "title": "frontend <holds>",
        "status": "passed",
        "score": 90.0,
        "result": {"reason": "r", "score_lower": 80.0, "findings": [{"statement": "availability", "holds": True}]},
    }
    text = page.render(report.summarize(run(load={}, experiment=result)))
    assert "did not run as meant" in text
    assert "frontend &lt;holds&gt;" in text
    assert "90.0 of 100, at least 80.0" in text
    assert "It did not run" in page.render(report.summarize(run(experiment={"error": "x"})))


def test_reports_are_written_whole(tmp_path: Path) -> None:
    command.write(tmp_path, report.summarize(run()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is True


def test_the_verdict_in_a_few_lines() -> None:
    lines = command.verdict(report.summarize(run(experiment={"status": "passed", "score": 90.0})))
    assert "requests: 200 due, 199 answered by 200, p95 400 ms" in lines
    assert "scale-ups: 1, of them 1 ready before they were needed" in lines
    assert "cpu: 0.50 cores on average, 25% of two" in lines
    assert "experiment: passed, score 90.0" in lines
    assert command.verdict(report.summarize(run(load={})))[-1] == "not as meant: the load did not finish"
