"""OTLP requests become points; unknown senders are told so."""

from __future__ import annotations

import gzip

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as collector
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics

from meshctl.sources.otlp import Export, OtlpReceiver, decode


def request(service: str = "frontend", instance: str = "frontend-0") -> collector.ExportMetricsServiceRequest:
    made = collector.ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    for key, value in (("service.name", service), ("service.instance.id", instance)):
        pair = resource.resource.attributes.add()
        pair.key, pair.value.string_value = key, value
    scope = resource.scope_metrics.add()
    counter = scope.metrics.add(name="cluster.upstream_rq_total")
    counter.sum.aggregation_temporality = metrics.AGGREGATION_TEMPORALITY_DELTA
    point = counter.sum.data_points.add(as_int=7, start_time_unix_nano=1_000_000_000, time_unix_nano=2_000_000_000)
    label = point.attributes.add()
    label.key, label.value.string_value = "envoy.cluster_name", "catalog"
    gauge = scope.metrics.add(name="server.uptime")
    gauge.gauge.data_points.add(as_double=1.5, time_unix_nano=2_000_000_000)
    histogram = scope.metrics.add(name="cluster.upstream_rq_time")
    histogram.histogram.aggregation_temporality = metrics.AGGREGATION_TEMPORALITY_DELTA
    histogram.histogram.data_points.add(count=3, sum=30.0, explicit_bounds=[5.0, 10.0], bucket_counts=[1, 1, 1])
    return made


def test_points_carry_kind_time_and_attributes() -> None:
    (export,) = decode(request())
    counter, gauge, histogram = export.points
    assert (export.service, export.instance) == ("frontend", "frontend-0")
    assert (counter.kind, counter.value, counter.start, counter.end) == ("delta", 7.0, 1.0, 2.0)
    assert counter.attributes == {"envoy.cluster_name": "catalog"}
    assert (gauge.kind, gauge.value) == ("gauge", 1.5)
    assert (histogram.value, histogram.count, histogram.bounds, histogram.counts) == (30.0, 3, (5.0, 10.0), (1, 1, 1))


async def test_known_senders_are_accepted_without_a_word() -> None:
    seen: list[Export] = []

    def accept(export: Export) -> bool:
        seen.append(export)
        return True

    receiver = OtlpReceiver(accept)
    response = await receiver._export(request().SerializeToString(), None)
    assert len(seen) == 1
    assert response.partial_success.rejected_data_points == 0


async def test_unknown_senders_learn_how_much_was_refused() -> None:
    response = await OtlpReceiver(lambda _: False)._export(request("stranger", "x-1").SerializeToString(), None)
    assert response.partial_success.rejected_data_points == 3
    assert "stranger" in response.partial_success.error_message


async def test_compressed_exports_are_taken_and_bombs_are_not() -> None:
    """Collectors compress; the server leaves it to the receiver, so that nothing is inflated without a bound."""
    plain = request().SerializeToString()
    response = await OtlpReceiver(lambda _: False)._export(gzip.compress(plain), None)
    assert response.partial_success.rejected_data_points == 3
    context = Aborted()
    with pytest.raises(ConnectionAbortedError):
        await OtlpReceiver(lambda _: True, max_bytes=1000)._export(gzip.compress(plain + b"\0" * 5000), context)
    with pytest.raises(ConnectionAbortedError):
        await OtlpReceiver(lambda _: True)._export(b"\xff\xff", context)
    assert context.codes == [grpc.StatusCode.INVALID_ARGUMENT] * 2


async def test_who_may_not_speak_for_a_sender_is_not_heard() -> None:
    seen: list[Export] = []

    def accept(export: Export) -> bool:
        seen.append(export)
        return True

    response = await OtlpReceiver(accept, lambda *_: False)._export(request().SerializeToString(), None)
    assert (seen, response.partial_success.rejected_data_points) == ([], 3)


class Aborted:
    """A call that can be aborted."""

    def __init__(self) -> None:
        self.codes: list[grpc.StatusCode] = []

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.codes.append(code)
        raise ConnectionAbortedError(details)
