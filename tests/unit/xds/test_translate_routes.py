"""Routes: buckets, the pair of arms, retries and timeouts."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from envoy_data_plane.envoy.config.route.v3 import Route as EnvoyRoute
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.filters.http.local_ratelimit.v3 import LocalRateLimit
from hypothesis import given
from hypothesis import strategies as st

from xds.errors import TranslateError
from xds.model import Limits, RateLimit, RetryPolicy, Route, Service
from xds.translate import routes

LIMITS = Limits(10, 10, 10, 3)


def service(name: str, timeout: float = 5.0, retries: RetryPolicy | None = None) -> Service:
    return Service(name, LIMITS, timeout=timeout, retries=retries or RetryPolicy())


def entries(configuration: RouteConfiguration) -> list[EnvoyRoute]:
    return configuration.virtual_hosts[0].routes


def ingress(*table: Route) -> list[EnvoyRoute]:
    return entries(routes.ingress(table, {route.service: service(route.service) for route in table}))


@given(st.floats(routes.MIN_RATE, routes.MAX_RATE))
def test_a_bucket_admits_its_rate(rate: float) -> None:
    made = routes.bucket(rate)
    assert made.rate == pytest.approx(rate, rel=0.01)
    assert made.fill_interval >= routes.MIN_FILL_INTERVAL


@given(st.floats(10, routes.MAX_RATE))
def test_a_bucket_holds_at_most_a_tenth_of_a_second(rate: float) -> None:
    made = routes.bucket(rate)
    assert made.fill_interval <= 0.1 + 1e-6
    assert made.tokens <= rate * 0.1 + 1


@given(st.floats(routes.MIN_RATE, 10, exclude_max=True))
def test_a_slow_rate_gets_one_token_at_a_time(rate: float) -> None:
    assert routes.bucket(rate).tokens == 1


@pytest.mark.parametrize("rate", [0, -1.0, math.nan, math.inf, 1e12, 1e-9])
def test_a_rate_that_no_bucket_can_hold_is_refused(rate: float) -> None:
    with pytest.raises(TranslateError, match="requests per second"):
        routes.bucket(rate)


def test_the_longest_prefix_comes_first_and_each_is_a_pair() -> None:
    made = ingress(Route("/", "web"), Route("/api/v2/", "next"), Route("/api", "api"))
    prefixes = [route.match.prefix or route.match.path_separated_prefix for route in made if route.match]
    assert prefixes == ["/api/v2/", "/api/v2/", "/api", "/api", "/", "/"]
    assert [route.stat_prefix for route in made[2:4]] == ["api_treatment", "api_control"]


def test_only_the_first_of_a_pair_asks_the_runtime() -> None:
    treatment, control = ingress(Route("/", "web"))
    assert treatment.match is not None
    assert control.match is not None
    fraction = treatment.match.runtime_fraction
    assert fraction is not None
    assert fraction.runtime_key == "chaos.treatment"
    assert fraction.default_value is not None
    assert fraction.default_value.numerator == 0
    assert control.match.runtime_fraction is None


def test_each_arm_overwrites_the_header_of_the_client() -> None:
    added = [option for route in ingress(Route("/", "web")) for option in route.request_headers_to_add]
    assert [(option.header.key, option.header.value) for option in added if option.header] == [
        ("x-chaos-group", "treatment"),
        ("x-chaos-group", "control"),
    ]
    assert {option.append_action.name for option in added} == {"OVERWRITE_IF_EXISTS_OR_ADD"}


def test_a_route_may_have_a_timeout_of_its_own() -> None:
    own, inherited = ingress(Route("/slow", "web", timeout=30.0), Route("/", "web"))[::2]
    assert own.route is not None
    assert inherited.route is not None
    assert (own.route.timeout, inherited.route.timeout) == (timedelta(seconds=30), timedelta(seconds=5))


def test_a_rate_limit_is_a_floor_and_a_plan() -> None:
    limited = only_route(RateLimit(planned=100, base=500)).typed_per_filter_config
    base, plan = (LocalRateLimit.parse(limited[f"ratelimit_{kind}"].value) for kind in ("base", "plan"))
    assert base.token_bucket is not None
    assert plan.token_bucket is not None
    assert (base.token_bucket.max_tokens, plan.token_bucket.max_tokens) == (500, 10)
    assert base.token_bucket.tokens_per_fill == 50
    assert plan.token_bucket.fill_interval == timedelta(milliseconds=100)
    assert base.filter_enforced is not None
    assert plan.filter_enforced is not None
    assert base.filter_enforced.default_value is not None
    assert plan.filter_enforced.default_value is not None
    assert (base.filter_enforced.runtime_key, base.filter_enforced.default_value.numerator) == ("", 100)
    assert (plan.filter_enforced.runtime_key, plan.filter_enforced.default_value.numerator) == (
        "rate_limit.web.enforced",
        0,
    )


def only_route(limit: RateLimit) -> VirtualHost:
    return routes.ingress([Route("/", "web", rate_limit=limit)], {"web": service("web")}).virtual_hosts[0]


def test_the_arms_of_an_only_route_share_its_buckets() -> None:
    host = only_route(RateLimit(planned=100, base=500))
    assert sorted(host.typed_per_filter_config) == ["ratelimit_base", "ratelimit_plan"]
    assert all(not arm.typed_per_filter_config for arm in host.routes)


def test_several_routes_have_buckets_of_their_own() -> None:
    made = ingress(Route("/", "web", rate_limit=RateLimit(100, 500)), Route("/api", "api"))
    assert [sorted(arm.typed_per_filter_config) for arm in made] == [
        [],
        [],
        ["ratelimit_base", "ratelimit_plan"],
        ["ratelimit_base", "ratelimit_plan"],
    ]


def test_a_route_without_a_rate_limit_has_no_bucket() -> None:
    assert all(not route.typed_per_filter_config for route in ingress(Route("/", "web")))


def test_a_route_to_nowhere_is_refused() -> None:
    with pytest.raises(TranslateError, match=r"'/x': unknown service 'shop'; known: web"):
        routes.ingress([Route("/x", "shop")], {"web": service("web")})


def test_a_callee_answers_to_its_name_with_and_without_a_port() -> None:
    made = routes.outbound([service("catalog"), service("cart")])
    assert [host.domains for host in made.virtual_hosts] == [["catalog", "catalog:*"], ["cart", "cart:*"]]


def test_retries_go_to_another_replica() -> None:
    policy = RetryPolicy(attempts=2, on=("connect-failure", "5xx"), per_try_timeout=0.5)
    action = entries(routes.outbound([service("catalog", retries=policy)]))[0].route
    assert action is not None
    made = action.retry_policy
    assert made is not None
    assert (made.retry_on, made.num_retries) == ("connect-failure,5xx", 2)
    assert made.per_try_timeout == timedelta(seconds=0.5)
    assert [predicate.name for predicate in made.retry_host_predicate] == ["envoy.retry_host_predicates.previous_hosts"]


@pytest.mark.parametrize("policy", [RetryPolicy(attempts=0), RetryPolicy(attempts=3, on=())])
def test_no_attempts_is_no_policy(policy: RetryPolicy) -> None:
    action = entries(routes.outbound([service("catalog", retries=policy)]))[0].route
    assert action is not None
    assert action.retry_policy is None


def test_the_caller_owns_the_deadline() -> None:
    action = entries(routes.inbound())[0].route
    assert action is not None
    assert (action.cluster, action.timeout) == ("inbound_app", timedelta(0))
