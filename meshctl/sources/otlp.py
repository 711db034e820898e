"""OTLP metrics in: the collector's gRPC service, decoded into plain points.

Sidecars push their statistics here (Envoy's OpenTelemetry stats sink), applications their business metrics
(any OpenTelemetry SDK). This module knows the wire; what the numbers mean is :mod:`meshctl.sources.traffic`.
Specification: https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as collector

from xds.server.admission import inflated

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_DELTA = 1  # AGGREGATION_TEMPORALITY_DELTA
_NANO = 1e-9

PointKind = Literal["delta", "cumulative", "gauge"]


@dataclass(frozen=True, slots=True)
class Point:
    """One data point. Times are seconds since the epoch; ``start`` is 0.0 where the sender gave none.

    ``value`` is the sum or gauge; for a histogram it is the sum of the observations, and ``bounds`` (explicit upper
    bounds, the last bucket is open) and ``counts`` (one more than bounds) hold the buckets.
    """

    name: str
    attributes: Mapping[str, str]
    kind: PointKind
    start: float
    end: float
    value: float
    count: int = 0
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """What one resource sent in one request: who (``service.name``, ``service.instance.id``) and its points."""

    service: str
    instance: str
    points: Sequence[Point]


class OtlpReceiver:
    """Serves ``MetricsService/Export`` on somebody else's gRPC server.

    ``sink`` is called for each resource; it returns False to refuse a sender that it does not know, which
    is reported to the sender as a partial success with the number of points rejected. So does ``speaks_for``, where
    the peer of a call may not speak for the resource. No request is larger than ``max_bytes`` when inflated.
    """

    def __init__(
        self,
        sink: Callable[[Export], bool],
        speaks_for: Callable[[Any, Export], bool] = lambda _context, _export: True,
        max_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._sink = sink
        self._speaks_for = speaks_for
        self._max_bytes = max_bytes

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The handler to register beside ADS."""
        method = grpc.unary_unary_rpc_method_handler(
            self._export,
            response_serializer=collector.ExportMetricsServiceResponse.SerializeToString,
        )
        service, _, name = EXPORT[1:].partition("/")
        return grpc.method_handlers_generic_handler(service, {name: method})

    async def _export(self, data: bytes, context: Any) -> Any:
        try:
            request = collector.ExportMetricsServiceRequest.FromString(inflated(data, self._max_bytes))
        except Exception as error:  # upb's own, which lives behind protobuf's door, and those of inflating
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no metrics of OTLP: {error}")
        response = collector.ExportMetricsServiceResponse()
        for export in decode(request):
            if not (self._speaks_for(context, export) and self._sink(export)):
                response.partial_success.rejected_data_points += len(export.points)
                response.partial_success.error_message = (
                    f"unknown sender: service.name={export.service!r} service.instance.id={export.instance!r}"
                )
        return response


def decode(request: Any) -> Iterator[Export]:
    """An ``ExportMetricsServiceRequest`` as one :class:`Export` per resource."""
    for resource in request.resource_metrics:
        attributes = _attributes(resource.resource.attributes)
        metrics = (metric for scope in resource.scope_metrics for metric in scope.metrics)
        points = [point for metric in metrics for point in _points(metric)]
        yield Export(attributes.get("service.name", ""), attributes.get("service.instance.id", ""), points)


def _points(metric: Any) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    if kind == "sum":
        temporality: PointKind = "delta" if metric.sum.aggregation_temporality == _DELTA else "cumulative"
        yield from (_number(metric.name, temporality, point) for point in metric.sum.data_points)
    elif kind == "gauge":
        yield from (_number(metric.name, "gauge", point) for point in metric.gauge.data_points)
    elif kind == "histogram":
        temporality = "delta" if metric.histogram.aggregation_temporality == _DELTA else "cumulative"
        yield from (_histogram(metric.name, temporality, point) for point in metric.histogram.data_points)


def _number(name: str, kind: PointKind, point: Any) -> Point:
    value = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
    start, end = point.start_time_unix_nano * _NANO, point.time_unix_nano * _NANO
    return Point(name, _attributes(point.attributes), kind, start, end, float(value))


def _histogram(name: str, kind: PointKind, point: Any) -> Point:
    start, end = point.start_time_unix_nano * _NANO, point.time_unix_nano * _NANO
    return Point(
        name,
        _attributes(point.attributes),
        kind,
        start,
        end,
        float(point.sum),
        int(point.count),
        tuple(point.explicit_bounds),
        tuple(point.bucket_counts),
    )


def _attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in pairs}
