"""Experiments as data, and the Chaos Toolkit documents that they become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chaoslib.experiment import ensure_experiment_is_valid

from chaos.client import ApiConfig
from chaos.errors import ExperimentError
from chaos.experiment import Experiment, from_mapping, parse_duration, standard, to_chaostoolkit
from chaos.faults import Fault, injected

WHO = {"title": "t", "service": "a", "entry": "b"}
EXPERIMENT = standard("catalog", "frontend", percent=30, treatment_percent=50, duration=10.0, delay=0.4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "crash"}, "faults.kind"),
        ({"percent": 0}, "faults.percent"),
        ({"percent": 0.5}, "faults.percent"),
        ({"percent": True}, "faults.percent"),
        ({"treatment_percent": 100}, "faults.treatment_percent"),
        ({"status": 200}, "faults.status"),
        ({"duration": 596.0}, "faults.duration"),
        ({"duration": float("nan")}, "faults.duration"),
        ({"kind": "delay"}, "faults.delay"),
    ],
)
def test_a_fault_says_which_field_is_wrong(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ExperimentError, match="use ") as raised:
        Fault(**{"kind": "abort", "percent": 30, **change})
    assert raised.value.field == field


def test_the_deadline_of_a_fault_outlives_its_planned_end() -> None:
    body = Fault("delay", 30, 50, 10.0, delay=0.4).request("catalog", "7")
    assert body["duration"] > 10.0
    assert body["delay"] == 0.4
    assert "status" not in body


def test_an_abort_asks_for_a_status_and_no_delay() -> None:
    body = Fault("abort", 30).request("catalog", None)
    assert body["status"] == 503
    assert "delay" not in body


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"injected": {"aborts": 3, "delays": 4}}, 4),
        ({"injected": None}, 0),
        ({}, 0),
        ({"injected": {"delays": None}}, 0),
    ],
)
def test_an_unknown_counter_proves_nothing(answer: dict[str, Any], expected: int) -> None:
    assert injected(answer, "delay") == expected


def test_the_standard_experiment_aborts_then_delays() -> None:
    assert [fault.kind for fault in EXPERIMENT.faults] == ["abort", "delay"]
    assert EXPERIMENT.length == 10 + 8 + 10 + 20


def test_the_document_reads_back_as_the_experiment() -> None:
    assert from_mapping(json.loads(json.dumps(EXPERIMENT.document()))) == EXPERIMENT


def test_durations_may_carry_units() -> None:
    fault = {"kind": "delay", "percent": 10, "delay": "400ms", "duration": "1m"}
    read = from_mapping({**WHO, "faults": [fault], "pause": "5s"})
    assert (read.faults[0].delay, read.faults[0].duration, read.pause) == (0.4, 60.0, 5.0)


@pytest.mark.parametrize(("text", "seconds"), [("400ms", 0.4), ("10s", 10.0), ("2m", 120.0), ("1.5", 1.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "fast", "10 h", "-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 400ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "file"),
        ({"titel": "x"}, "titel"),
        ({"title": "t"}, "file"),
        ({"title": "", "service": "a", "entry": "b", "faults": [{"kind": "abort", "percent": 1}]}, "title"),
        ({**WHO, "faults": []}, "faults"),
        ({**WHO, "faults": "abort"}, "faults"),
        ({**WHO, "faults": [{"kind": "abort"}]}, "faults[0]"),
        ({**WHO, "faults": ["abort"]}, "faults[0]"),
        (
            {**WHO, "faults": [{"kind": "abort", "precent": 1}]},
            "faults[0].precent",
        ),
        ({**WHO, "pause": "soon"}, "pause"),
        (
            {**WHO, "pause": 0, "faults": [{"kind": "abort", "percent": 1}]},
            "pause",
        ),
    ],
)
def test_a_file_says_which_field_is_wrong(document: object, field: str) -> None:
    with pytest.raises(ExperimentError) as raised:
        from_mapping(document)
    assert raised.value.field == field
    assert field in str(raised.value)


def test_chaos_toolkit_accepts_the_document() -> None:
    ensure_experiment_is_valid(to_chaostoolkit(EXPERIMENT, ApiConfig("http://127.0.0.1:1", "token"), "7"))


def test_the_document_names_the_token_file_and_never_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    text = json.dumps(to_chaostoolkit(EXPERIMENT, ApiConfig("http://127.0.0.1:1", str(token)), "7"))
    assert str(token) in text
    assert "s3cret" not in text


def test_every_fault_is_proven_before_it_ends() -> None:
    document = to_chaostoolkit(EXPERIMENT, ApiConfig("http://127.0.0.1:1"), 7)
    names = [activity["name"] for activity in document["method"]]
    assert names == [f"{step}-{fault}" for fault in (0, 1) for step in ("inject", "proof", "end", "settled")]
    pauses = [activity["pauses"]["before"] for activity in document["method"] if "pauses" in activity]
    assert pauses == [10.0, EXPERIMENT.pause, 10.0, EXPERIMENT.recovery]


def test_no_tolerance_is_a_float_and_rollbacks_always_run() -> None:
    document = to_chaostoolkit(EXPERIMENT, ApiConfig("http://127.0.0.1:1"), 7)
    assert [probe["tolerance"] for probe in document["steady-state-hypothesis"]["probes"]] == [True]
    assert document["runtime"]["rollbacks"]["strategy"] == "always"
    assert document["rollbacks"][0]["provider"]["func"] == "end"


def test_an_experiment_without_faults_is_refused() -> None:
    with pytest.raises(ExperimentError, match="name at least one"):
        Experiment("t", "a", "b", ())
