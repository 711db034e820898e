"""Actions and probes as Chaos Toolkit calls them."""

from __future__ import annotations

import pytest

from chaos import actions, probes
from chaos.client import Api, ApiConfig
from chaos.errors import ApiError, UnreachableError
from tests.unit.chaos.fake_api import ControlPlane, FaultState

NOBODY = {"meshctl_url": "http://127.0.0.1:9", "meshctl_timeout": 1.0}


@pytest.fixture
def settings(config: ApiConfig) -> dict[str, object]:
    return {"meshctl_url": config.url, "meshctl_token_file": config.token_file, "meshctl_experiment": 7}


def inject(settings: dict[str, object]) -> dict[str, object]:
    return actions.inject(
        service="catalog", kind="abort", percent=30, treatment_percent=50, duration=5.0, configuration=settings
    )


def test_injecting_starts_a_fault_of_this_experiment(plane: ControlPlane, settings: dict[str, object]) -> None:
    output = inject(settings)
    assert plane.active()["f1"].body["experiment"] == 7
    assert (output["id"], output["kind"], output["before"]) == ("f1", "abort", 0)


def test_a_second_fault_is_refused(plane: ControlPlane, settings: dict[str, object]) -> None:
    inject(settings)
    with pytest.raises(ApiError, match="another fault is active"):
        inject(settings)


def test_ending_deletes_own_faults_and_may_be_repeated(plane: ControlPlane, settings: dict[str, object]) -> None:
    inject(settings)
    assert actions.end(settings)["ended"] == ["f1"]
    assert actions.end(settings)["ended"] == []
    assert not plane.active()


def test_faults_of_another_experiment_are_left_alone(plane: ControlPlane, settings: dict[str, object]) -> None:
    inject({**settings, "meshctl_experiment": 8})
    assert actions.end(settings)["ended"] == []
    assert plane.active()


def test_the_proof_is_the_counter_of_the_active_fault(plane: ControlPlane, settings: dict[str, object]) -> None:
    assert probes.injected("abort", settings) == 0
    inject(settings)
    fault = plane.faults["f1"]
    plane.faults["f1"] = FaultState(fault.body, fault.start - 2.0, fault.end)  # as if it had been active for 2 s
    assert probes.injected("abort", settings) >= 120
    assert probes.injected("delay", settings) == 0


def test_the_steady_state_is_true_or_false_and_nothing_else(plane: ControlPlane, settings: dict[str, object]) -> None:
    assert probes.slo_holds("frontend", 5.0, settings) is True
    plane.traffic = False
    assert probes.slo_holds("frontend", 5.0, settings) is False
    assert probes.slo_holds("frontend", 5.0, NOBODY) is False


def test_percentages_are_whole_numbers(plane: ControlPlane, settings: dict[str, object]) -> None:
    assert probes.good_percent("frontend", 5.0, settings) == 100
    plane.traffic = False
    assert probes.good_percent("frontend", 5.0, settings) == probes.UNKNOWN
    assert probes.good_percent("frontend", 5.0, NOBODY) == probes.UNKNOWN


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), None, "1"])
def test_no_figure_of_the_server_becomes_nan(plane: ControlPlane, settings: dict[str, object], ratio: object) -> None:
    plane.documents["/v1/slo/frontend"] = {"good_ratio": ratio, "ok": None}
    assert probes.good_percent("frontend", 5.0, settings) == probes.UNKNOWN
    assert probes.slo_holds("frontend", 5.0, settings) is False


def test_an_action_without_an_answer_fails() -> None:
    with pytest.raises(UnreachableError):
        Api(ApiConfig(str(NOBODY["meshctl_url"]), timeout=1.0)).get("/v1/faults")
    with pytest.raises(UnreachableError):
        actions.end(NOBODY)
