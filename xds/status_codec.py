"""CSDS and LRS on the wire: the door to protobuf beside :mod:`xds.codec`, for messages that only these two need.

upb classes compiled from protos/_status.proto: they decode what strangers send in microseconds and within bounds
(envoy-data-plane would take milliseconds, and its recursion is Python's), and an answer about a thousand resources
must not hold up the streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from xds import _status_pb2 as wire
from xds.errors import CodecError, RemoteError
from xds.loads import ClusterLoad, check
from xds.matchers import Match, any_of, string_match
from xds.protocol.events import Node
from xds.protocol.inventory import ResourceState
from xds.protocol.states import State
from xds.snapshot import Resource

_SYNCED, _NOT_SENT, _STALE, _ERROR = 1, 2, 3, 4  # envoy.service.status.v3.ConfigStatus
_CONFIG_STATUS: dict[State, int] = {"SYNCED": _SYNCED, "NOT-SENT": _NOT_SENT, "STALE": _STALE, "NACKED": _ERROR}
_REQUESTED, _DOES_NOT_EXIST, _ACKED, _NACKED = 1, 2, 3, 4  # envoy.admin.v3.ClientResourceStatus

#: What may be shown of a resource: its body, or None.
Contents = Callable[[Resource], bytes | None]

_M = TypeVar("_M", wire.ClientStatusRequest, wire.LoadStatsRequest)


# CSDS


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """A ClientStatusRequest: which nodes, and whether with the contents of their resources."""

    matches: Match
    contents: bool


def decode_status_query(data: bytes) -> StatusQuery:
    """CodecError if the bytes are none; RemoteError if it asks by something that is not known here."""
    message = _parse(wire.ClientStatusRequest, data)
    matches = any_of([_node_match(matcher) for matcher in message.node_matchers])
    return StatusQuery(matches, not message.exclude_resource_contents)


def _node_match(matcher: wire.NodeMatcher) -> Match:
    if matcher.node_metadatas:
        raise RemoteError(
            "node_matchers by node_metadatas are not supported: this server keeps no metadata of nodes; "
            "match by node_id"
        )
    if not matcher.HasField("node_id"):
        return any_of([])
    found = matcher.node_id
    kind = found.WhichOneof("match_pattern") or ""
    text = found.safe_regex.regex if kind == "safe_regex" else getattr(found, kind) if kind in _TEXTS else ""
    return string_match(kind, text, ignore_case=found.ignore_case)


_TEXTS = frozenset({"exact", "prefix", "suffix", "contains"})


def client_config(
    node: Node, states: Iterable[ResourceState], contents: Contents, updated: Callable[[ResourceState], float | None]
) -> bytes:
    """A ClientStatusResponse with one ClientConfig; several of them, one after the other, are one response."""
    response = wire.ClientStatusResponse()
    config = response.config.add()
    _fill_node(config.node, node)
    for state in states:
        _fill_generic(config.generic_xds_configs.add(), state, contents, updated(state))
    return response.SerializeToString()


def _fill_node(message: wire.Node, node: Node) -> None:
    message.id, message.cluster = node.id, node.cluster
    message.user_agent_name, message.user_agent_version = node.user_agent, node.user_agent_version
    message.client_features.extend(sorted(node.features))


def _fill_generic(
    message: wire.ClientConfig.GenericXdsConfig, state: ResourceState, contents: Contents, updated: float | None
) -> None:
    message.type_url, message.name, message.version_info = state.type_url, state.name, state.version
    message.config_status, message.client_status = _CONFIG_STATUS[state.state], _client_status(state)
    body = contents(state.resource) if state.resource is not None else None
    if body is not None:
        message.xds_config.type_url, message.xds_config.value = state.type_url, body
    if updated is not None:
        _fill_time(message.last_updated, updated)
    if state.state == "NACKED":
        _fill_error(message.error_state, state, body)


def _fill_error(message: wire.UpdateFailureState, state: ResourceState, body: bytes | None) -> None:
    message.details, message.version_info = state.error, state.rejected
    if state.at is not None:
        _fill_time(message.last_update_attempt, state.at)
    if body is not None:
        message.failed_configuration.type_url, message.failed_configuration.value = state.type_url, body


def _client_status(state: ResourceState) -> int:
    """What the client would say, as far as its answers tell."""
    if state.state == "NACKED":
        return _NACKED
    if state.missing:
        return _DOES_NOT_EXIST
    return _ACKED if state.accepted else _REQUESTED


# LRS


@dataclass(frozen=True, slots=True)
class LoadMessage:
    """A LoadStatsRequest. ``node`` is sure to be there in the first message of a stream only."""

    node: Node | None
    clusters: tuple[ClusterLoad, ...]


def decode_load_message(data: bytes) -> LoadMessage:
    """CodecError if the bytes are none; RemoteError if a number in it cannot be."""
    message = _parse(wire.LoadStatsRequest, data)
    node = _node(message.node) if message.HasField("node") else None
    return LoadMessage(node, check(tuple(_load(stats) for stats in message.cluster_stats)))


def load_settings(interval: float) -> bytes:
    """A LoadStatsResponse that asks for reports about all clusters every ``interval`` seconds."""
    response = wire.LoadStatsResponse(send_all_clusters=True, report_endpoint_granularity=False)
    _fill_time(response.load_reporting_interval, interval)
    return response.SerializeToString()


def _load(stats: wire.ClusterStats) -> ClusterLoad:
    """Clusters are summed over localities and priorities."""
    localities = stats.upstream_locality_stats
    interval = stats.load_report_interval
    return ClusterLoad(
        cluster=stats.cluster_name,
        interval=interval.seconds + interval.nanos / 1e9,
        issued=sum(one.total_issued_requests for one in localities),
        succeeded=sum(one.total_successful_requests for one in localities),
        failed=sum(one.total_error_requests for one in localities),
        in_progress=sum(one.total_requests_in_progress for one in localities),
        dropped=stats.total_dropped_requests,
        dropped_by={one.category: one.dropped_count for one in stats.dropped_requests},
        service_name=stats.cluster_service_name,
    )


def _node(node: wire.Node) -> Node:
    version = node.user_agent_version
    if node.HasField("user_agent_build_version"):
        build = node.user_agent_build_version.version
        version = f"{build.major_number}.{build.minor_number}.{build.patch}"
    return Node(node.id, node.cluster, version, frozenset(node.client_features), node.user_agent_name)


# Both


def _fill_time(message: wire.Time, seconds: float) -> None:
    message.seconds, message.nanos = divmod(round(seconds * 1e9), 1_000_000_000)


def _parse(message_type: type[_M], data: bytes) -> _M:
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        raise CodecError(f"{len(data)} bytes are not a {message_type.DESCRIPTOR.name}: {error}") from error
