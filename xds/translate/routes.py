"""RDS: which request goes where, how long it may take, how often it is tried again, and in which arm it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    RuntimeFractionalPercent,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValueOptionHeaderAppendAction as AppendAction,
)
from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicy as EnvoyRetryPolicy,
)
from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.config.route.v3 import (
    Route as EnvoyRoute,
)
from envoy_data_plane.envoy.extensions.filters.http.local_ratelimit.v3 import LocalRateLimit
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode, TokenBucket
from envoy_data_plane.google.protobuf import Any

from xds.errors import TranslateError
from xds.model import CHAOS_GROUP_HEADER, CONTROL, TREATMENT, RateLimit, RetryPolicy, Route, Service
from xds.translate.clusters import INBOUND_APP
from xds.translate.listeners import INBOUND, INGRESS, OUTBOUND, RATE_LIMIT_BASE, RATE_LIMIT_PLAN
from xds.translate.messages import packed, runtime_percent, seconds
from xds.translate.runtime import TREATMENT_KEY, rate_limit_key

#: Seconds. Envoy rejects shorter fill intervals.
MIN_FILL_INTERVAL = 0.05
#: Seconds; longer only for rates below 10 requests per second, which have one token at a time.
MAX_FILL_INTERVAL = 0.1
#: Requests per second; below one per hour a bucket never fills within any sensible time.
MIN_RATE = 1 / 3600
#: Requests per second; above it a bucket's tokens no longer matter.
MAX_RATE = 1e9


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket that holds one fill: ``tokens`` every ``fill_interval`` seconds."""

    tokens: int
    fill_interval: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.tokens / self.fill_interval


def bucket(rate: float) -> Bucket:
    """A bucket of one fill that admits ``rate`` requests per second.

    A bucket that RDS changes starts full again, so it must be small; but tokens that do not fit are lost, and requests
    come in bursts: at its full rate a Poisson stream gets 82 % of its requests through a bucket of 5 tokens in 50 ms
    and 87 % through one of 10 in 100 ms. Hence the longest interval of 50 to 100 ms that holds whole tokens: as many
    as 100 ms allow (rounded down), over exactly the time that they take. Below 10 requests per second it is one token
    at a time. The interval is rounded to a microsecond, which moves the rate by less than 0.002 %.

    Raises :class:`~xds.errors.TranslateError` for a rate that is not a number between one per hour and 1e9.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise TranslateError(f"rate limit {rate!r}: expected {MIN_RATE:.5f} to {MAX_RATE:g} requests per second")
    tokens = max(1, int(rate * MAX_FILL_INTERVAL))
    return Bucket(tokens, max(MIN_FILL_INTERVAL, round(tokens / rate, 6)))


def outbound(callees: Iterable[Service]) -> RouteConfiguration:
    """Routes ``outbound``: one virtual host per callee, by its name with or without a port."""
    hosts = [
        VirtualHost(
            name=callee.name,
            domains=[callee.name, f"{callee.name}:*"],
            routes=[EnvoyRoute(match=RouteMatch(prefix="/"), route=_action(callee, callee.timeout))],
        )
        for callee in callees
    ]
    return RouteConfiguration(name=OUTBOUND, virtual_hosts=hosts)


def inbound() -> RouteConfiguration:
    """Routes ``inbound``: everything to the application.

    No timeout here: the caller owns the deadline and resets the stream when it has passed.
    """
    action = RouteAction(cluster=INBOUND_APP, timeout=seconds(0))
    host = VirtualHost(name=INBOUND, domains=["*"], routes=[EnvoyRoute(match=RouteMatch(prefix="/"), route=action)])
    return RouteConfiguration(name=INBOUND, virtual_hosts=[host])


def ingress(routes: Iterable[Route], services: Mapping[str, Service]) -> RouteConfiguration:
    """Routes ``ingress``: longest prefix first, each as the pair of an experiment's arms.

    Envoy makes the buckets of a rate limit once for every route or virtual host that carries it. The rate limit of an
    only route stands on the virtual host, so that its arms share it; with several routes each arm has its own, and
    while an experiment runs a limit admits up to its rate per arm.

    Raises :class:`~xds.errors.TranslateError` for a route to an unknown service.
    """
    ordered = sorted(routes, key=lambda route: (-len(route.prefix), route.prefix))
    pairs = [arm for route in ordered for arm in _arms(route, _target(route, services))]
    host = VirtualHost(name=INGRESS, domains=["*"], routes=pairs)
    if len(ordered) == 1:
        host.typed_per_filter_config = dict(pairs[0].typed_per_filter_config)
        for arm in pairs:
            arm.typed_per_filter_config = {}
    return RouteConfiguration(name=INGRESS, virtual_hosts=[host])


def _target(route: Route, services: Mapping[str, Service]) -> Service:
    if route.service not in services:
        known = ", ".join(sorted(services)) or "none"
        raise TranslateError(f"ingress route {route.prefix!r}: unknown service {route.service!r}; known: {known}")
    return services[route.service]


def _arms(route: Route, service: Service) -> tuple[EnvoyRoute, EnvoyRoute]:
    """Treatment (a share of the requests that the runtime gives, 0 % by default), then control: all the others."""
    share = _match(route.prefix)
    share.runtime_fraction = runtime_percent(0, TREATMENT_KEY)
    return _arm(route, service, share, TREATMENT), _arm(route, service, _match(route.prefix), CONTROL)


def _arm(route: Route, service: Service, match: RouteMatch, arm: str) -> EnvoyRoute:
    timeout = service.timeout if route.timeout is None else route.timeout
    header = HeaderValueOption(
        header=HeaderValue(key=CHAOS_GROUP_HEADER, value=arm),
        append_action=AppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return EnvoyRoute(
        match=match,
        route=_action(service, timeout),
        request_headers_to_add=[header],
        typed_per_filter_config={} if route.rate_limit is None else _rate_limits(service.name, route.rate_limit),
        stat_prefix=f"{service.name}_{arm}",
    )


def _match(prefix: str) -> RouteMatch:
    """``/api`` matches ``/api`` and ``/api/x`` but not ``/apis``; ``/api/`` and ``/`` match as plain prefixes."""
    if prefix.endswith("/"):
        return RouteMatch(prefix=prefix)
    return RouteMatch(path_separated_prefix=prefix)


def _action(service: Service, timeout: float) -> RouteAction:
    return RouteAction(cluster=service.name, timeout=seconds(timeout), retry_policy=_retries(service.retries))


def _retries(policy: RetryPolicy) -> EnvoyRetryPolicy | None:
    """Retries go to another replica where there is one; how many run at once, ``max_retries`` limits."""
    if policy.attempts < 1 or not policy.on:
        return None
    other = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
    )
    return EnvoyRetryPolicy(
        retry_on=",".join(policy.on),
        num_retries=policy.attempts,
        per_try_timeout=None if policy.per_try_timeout is None else seconds(policy.per_try_timeout),
        retry_host_predicate=[other],
        host_selection_retry_max_attempts=3,
        retry_back_off=RetryPolicyRetryBackOff(base_interval=seconds(0.025), max_interval=seconds(0.25)),
    )


def _rate_limits(service: str, limit: RateLimit) -> dict[str, Any]:
    """The base is always enforced; the plan only while its leased runtime key says so.

    The base is there for floods and not for bursts, so its bucket holds a whole second.
    """
    base = _rate_limit(f"{RATE_LIMIT_BASE}_{service}", bucket(limit.base), runtime_percent(100))
    plan = _rate_limit(
        f"{RATE_LIMIT_PLAN}_{service}", bucket(limit.planned), runtime_percent(0, rate_limit_key(service))
    )
    assert base.token_bucket is not None
    base.token_bucket.max_tokens = max(base.token_bucket.max_tokens, int(limit.base))
    return {RATE_LIMIT_BASE: packed(base), RATE_LIMIT_PLAN: packed(plan)}


def _rate_limit(stat_prefix: str, size: Bucket, enforced: RuntimeFractionalPercent) -> LocalRateLimit:
    return LocalRateLimit(
        stat_prefix=stat_prefix,
        status=HttpStatus(code=StatusCode.TooManyRequests),
        token_bucket=TokenBucket(
            max_tokens=size.tokens, tokens_per_fill=size.tokens, fill_interval=seconds(size.fill_interval)
        ),
        filter_enabled=runtime_percent(100),
        filter_enforced=enforced,
    )
