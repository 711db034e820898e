"""What strangers send to CSDS and LRS decodes, or is refused in our own words; nothing else happens."""

from __future__ import annotations

import datetime

import pytest
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterStats, ClusterStatsDroppedRequests, UpstreamLocalityStats
from envoy_data_plane.envoy.service.load_stats.v3 import LoadStatsRequest
from envoy_data_plane.envoy.service.status.v3 import ClientStatusRequest
from envoy_data_plane.envoy.type.matcher.v3 import NodeMatcher, RegexMatcher, StringMatcher
from hypothesis import given, settings
from hypothesis import strategies as st

from xds import status_codec
from xds.errors import CodecError, RemoteError
from xds.loads import MAX_COUNT, ClusterLoad

QUERY = bytes(
    ClientStatusRequest(
        node_matchers=[
            NodeMatcher(node_id=StringMatcher(safe_regex=RegexMatcher(regex=r"ca(rt|talog)-\d{1,3}"))),
            NodeMatcher(node_id=StringMatcher(prefix="web-", ignore_case=True)),
        ]
    )
)
REPORT = bytes(
    LoadStatsRequest(
        node=Node(id="cart-0", cluster="cart"),
        cluster_stats=[
            ClusterStats(
                cluster_name="catalog",
                upstream_locality_stats=[UpstreamLocalityStats(total_issued_requests=7, total_error_requests=1)],
                dropped_requests=[ClusterStatsDroppedRequests(category="lb", dropped_count=3)],
                load_report_interval=datetime.timedelta(seconds=10),
            )
        ],
    )
)


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with a few bytes changed, left out or put in."""
    data = bytearray(original)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data)


@settings(max_examples=1000)
@given(st.one_of(st.binary(max_size=200), mutated(QUERY)), st.text(max_size=30))
def test_a_question_is_understood_or_refused(data: bytes, node_id: str) -> None:
    try:
        query = status_codec.decode_status_query(data)
    except (CodecError, RemoteError):
        return
    assert query.matches(node_id) in (True, False)


@settings(max_examples=1000)
@given(st.one_of(st.binary(max_size=200), mutated(REPORT)))
def test_a_report_is_believable_or_refused(data: bytes) -> None:
    try:
        message = status_codec.decode_load_message(data)
    except (CodecError, RemoteError):
        return
    for load in message.clusters:
        assert load.cluster
        assert 0.0 < load.interval <= 86_400.0
        assert 0 <= max(load.issued, load.succeeded, load.failed, load.in_progress, load.dropped) <= MAX_COUNT


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
        max_size=4,
    ),
    st.integers(1, 86_400_000),
)
def test_localities_are_summed(localities: list[tuple[int, int, int, int]], milliseconds: int) -> None:
    stats = ClusterStats(
        cluster_name="c",
        load_report_interval=datetime.timedelta(milliseconds=milliseconds),
        upstream_locality_stats=[
            UpstreamLocalityStats(
                total_issued_requests=issued,
                total_successful_requests=succeeded,
                total_error_requests=failed,
                total_requests_in_progress=open_,
            )
            for issued, succeeded, failed, open_ in localities
        ],
    )
    (load,) = status_codec.decode_load_message(bytes(LoadStatsRequest(cluster_stats=[stats]))).clusters
    sums = [sum(one) for one in zip(*localities, strict=True)] or [0, 0, 0, 0]
    assert load == ClusterLoad("c", load.interval, *sums)
    assert load.interval == pytest.approx(milliseconds / 1e3)
