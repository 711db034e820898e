"""The policies: what each proposes from the same numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshctl.errors import UsageError
from meshctl.model import Demand, ServiceObservation
from meshctl.planning.replicas import Sizing
from meshctl.scaling import policy

SERVICE = ServiceObservation("catalog", 50, 50, 0, 0, 0.1, 0.1, 0.2, 0.1, 5, 2, 2, 0.5, 1000)
DEMAND = Demand(
    *("catalog", "mixture"),
    skilled=False,
    peak_skilled=True,
    reason="beats last value",
    expected=60,
    upper=80,
    peak=120,
)
SIZING = Sizing(current=2, ready=2, minimum=1, maximum=8, utilization=0.8, time=0.1, hpa=3, reactive=3, floor=5)


def test_static_keeps_what_is_there() -> None:
    assert policy.get("static")(SERVICE, DEMAND, SIZING).replicas == 2


def test_reactive_follows_utilisation() -> None:
    proposal = policy.get("reactive")(SERVICE, DEMAND, SIZING)
    assert (proposal.replicas, proposal.policy) == (3, "reactive")
    assert "80%" in proposal.reason


@pytest.mark.parametrize(("ready", "why"), [(0, "no replica is ready"), (2, "no service time measured yet")])
def test_reactive_stays_where_nothing_is_measured(ready: int, why: str) -> None:
    blind = replace(SIZING, ready=ready, utilization=None, reactive=None, hpa=None)
    proposal = policy.get("reactive")(SERVICE, None, blind)
    assert proposal.replicas == 2
    assert why in proposal.reason


def test_predictive_raises_a_floor() -> None:
    proposal = policy.get("predictive")(SERVICE, DEMAND, SIZING)
    assert (proposal.replicas, proposal.policy) == (5, "predictive")
    assert "120.0/s" in proposal.reason


def test_predictive_never_goes_below_the_reactive_count() -> None:
    proposal = policy.get("predictive")(SERVICE, DEMAND, replace(SIZING, floor=1))
    assert (proposal.replicas, proposal.policy) == (3, "reactive")


def test_a_forecast_without_skill_does_not_act_and_says_why() -> None:
    unskilled = replace(DEMAND, skilled=True, peak_skilled=False, reason="12 steps of 48 needed")
    proposal = policy.get("predictive")(SERVICE, unskilled, SIZING)
    assert (proposal.replicas, proposal.policy) == (3, "reactive")
    assert "12 steps of 48 needed" in proposal.reason


@pytest.mark.parametrize("demand", [None, DEMAND])
def test_predictive_without_a_forecast_or_a_service_time_is_reactive(demand: Demand | None) -> None:
    proposal = policy.get("predictive")(SERVICE, demand, replace(SIZING, floor=None))
    assert (proposal.replicas, proposal.policy) == (3, "reactive")


def test_a_forecast_acts_while_no_replica_is_ready() -> None:
    blind = replace(SIZING, ready=0, utilization=None, reactive=None, hpa=None)
    assert policy.get("predictive")(SERVICE, DEMAND, blind).replicas == 5


def test_policies_are_found_by_name() -> None:
    assert policy.NAMES == ("static", "reactive", "predictive")
    assert [policy.get(name).name for name in policy.NAMES] == list(policy.NAMES)
    with pytest.raises(UsageError, match="unknown policy 'magic'; use one of static"):
        policy.get("magic")
