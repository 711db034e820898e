"""Runtime values: what Envoy would misread never leaves the house."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from envoy_data_plane.envoy.service.runtime.v3 import Runtime
from hypothesis import given
from hypothesis import strategies as st

from xds.errors import TranslateError
from xds.model import Fault, Limits, RuntimeLayer, RuntimeValue
from xds.translate import runtime

LIMITS = Limits(max_connections=1, max_pending_requests=2, max_requests=3, max_retries=4)


def layer(values: Mapping[str, RuntimeValue]) -> RuntimeLayer:
    return RuntimeLayer("limits", values, ttl=15)


def test_limits_use_the_keys_that_circuit_breakers_read() -> None:
    assert runtime.limits_values({"catalog": LIMITS}, ["frontend"]) == {
        "circuit_breakers.catalog.default.max_connections": 1,
        "circuit_breakers.catalog.default.max_pending_requests": 2,
        "circuit_breakers.catalog.default.max_requests": 3,
        "circuit_breakers.catalog.default.max_retries": 4,
        "rate_limit.frontend.enforced": 100,
    }


def test_without_limits_the_layer_is_empty() -> None:
    assert runtime.limits_values({}) == {}


def test_the_order_of_limits_does_not_change_the_layer() -> None:
    ab = runtime.limits_values({"a": LIMITS, "b": LIMITS}, ["x", "y"])
    ba = runtime.limits_values({"b": LIMITS, "a": LIMITS}, ["y", "x"])
    assert list(ab.items()) == list(ba.items())


def test_an_abort_switches_delays_off() -> None:
    values = runtime.fault_values(Fault("catalog", "abort", percent=30, status=500))
    assert values == {
        "fault.http.abort.abort_percent": 30,
        "fault.http.abort.http_status": 500,
        "fault.http.delay.fixed_delay_percent": 0,
    }


def test_a_delay_switches_aborts_off() -> None:
    values = runtime.fault_values(Fault("catalog", "delay", percent=5, delay=0.25))
    assert values == {
        "fault.http.abort.abort_percent": 0,
        "fault.http.delay.fixed_delay_percent": 5,
        "fault.http.delay.fixed_duration_ms": 250,
    }


@pytest.mark.parametrize(
    "fault",
    [
        Fault("s", "abort", percent=101),
        Fault("s", "abort", percent=-1),
        Fault("s", "abort", percent=10, status=42),
        Fault("s", "delay", percent=10, delay=0.0),
        Fault("s", "delay", percent=10, delay=0.0001),
        Fault("s", "delay", percent=10, delay=3600.0),
        Fault("s", "delay", percent=10, delay=math.nan),
        Fault("s", "delay", percent=10, delay=math.inf),
    ],
)
def test_a_fault_that_envoy_would_ignore_is_refused(fault: Fault) -> None:
    with pytest.raises(TranslateError, match="expected"):
        runtime.fault_values(fault)


def test_the_share_of_the_treatment_arm() -> None:
    fault = Fault("catalog", "abort", percent=100, treatment_percent=25)
    assert runtime.treatment_values(fault) == {"chaos.treatment": 25}
    with pytest.raises(TranslateError, match="treatment_percent is 120"):
        runtime.treatment_values(Fault("catalog", "abort", 100, treatment_percent=120))


@pytest.mark.parametrize("value", [0, 1, 2**31, {"numerator": 5, "denominator": "MILLION"}, {"numerator": 100}])
def test_values_that_envoy_reads(value: RuntimeValue) -> None:
    runtime.check_values({"chaos.treatment": value})


@pytest.mark.parametrize(
    "value",
    [
        -1,
        2**31 + 1,
        10**12,
        True,
        False,
        0.9,
        1.0,
        math.nan,
        math.inf,
        "5",
        None,
        [1],
        {},
        {"numerator": 101, "denominator": "HUNDRED"},
        {"numerator": -1},
        {"numerator": True},
        {"numerator": 1, "denominator": "THOUSAND"},
        {"numerator": 1, "denominator": 100},
        {"numerator": 1, "denominator": ["HUNDRED"]},
        {"numerator": 1, "other": 2},
        {"denominator": "HUNDRED"},
    ],
)
def test_values_that_envoy_would_ignore_misread_or_choke_on(value: Any) -> None:
    with pytest.raises(TranslateError, match=r"chaos\.treatment.*expected"):
        runtime.check_values({"chaos.treatment": value})


def test_a_circuit_breaker_starts_at_one() -> None:
    key = "circuit_breakers.catalog.default.max_requests"
    runtime.check_values({key: 1})
    with pytest.raises(TranslateError, match="from 1 to"):
        runtime.check_values({key: 0})


def test_a_layer_is_checked_before_it_becomes_a_resource() -> None:
    with pytest.raises(TranslateError):
        runtime.layer_resource(layer({"a": -5}))


def test_an_empty_layer_is_a_resource() -> None:
    made = runtime.layer_resource(layer({}))
    assert made.name == "limits"
    assert Runtime.parse(made.body).name == "limits"


def test_a_layer_carries_numbers_and_fractions() -> None:
    body = runtime.layer_resource(layer({"a.b": 7, "c": {"numerator": 1, "denominator": "MILLION"}})).body
    parsed = Runtime.parse(body).layer
    assert parsed is not None
    assert parsed.to_dict() == {"a.b": 7.0, "c": {"numerator": 1.0, "denominator": "MILLION"}}


VALUES = st.one_of(
    st.integers(1, 2**31),
    st.fixed_dictionaries({"numerator": st.integers(0, 100), "denominator": st.just("HUNDRED")}),
)


@given(st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=8), st.randoms(use_true_random=False))
def test_the_same_values_give_the_same_bytes(values: dict[str, RuntimeValue], chance: Any) -> None:
    shuffled = list(values.items())
    chance.shuffle(shuffled)
    assert runtime.layer_resource(layer(values)) == runtime.layer_resource(layer(dict(shuffled)))
