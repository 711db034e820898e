"""The control plane's own metrics: one table, from which the instruments and the reference page are made.

OpenTelemetry SDK, exported in Prometheus' text format at /metrics. No metric has a label per node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from xds.histogram import SECONDS


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as Prometheus shows it. ``buckets`` are upper bounds of a histogram, in seconds.

    ``read`` ones are counted elsewhere, once per stream and push, and read when somebody asks
    (:mod:`meshctl.server.xds_metrics`).
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    description: str
    buckets: tuple[float, ...] = ()
    read: bool = False


METRICS: tuple[Metric, ...] = (
    Metric("meshctl_xds_streams", "gauge", (), "Sidecars connected now.", read=True),
    Metric(
        "meshctl_xds_pushes_total",
        "counter",
        ("xds_type", "outcome"),
        "Responses sent to sidecars, by what became of them (sent, acked, nacked; refused: leases not given).",
        read=True,
    ),
    Metric("meshctl_xds_nacks_total", "counter", ("xds_type",), "Responses that a sidecar rejected.", read=True),
    Metric(
        "meshctl_xds_refusals_total",
        "counter",
        ("reason",),
        "Streams and calls that were refused: identity, node, expired, observe (who it is); streams, peer_streams, "
        "new_streams, names, name_length, types, node, message_size, first_request, unread (how much it wants).",
        read=True,
    ),
    Metric("meshctl_xds_heartbeats_total", "counter", (), "Lease renewals sent.", read=True),
    Metric(
        "meshctl_xds_push_duration_seconds",
        "histogram",
        ("xds_type",),
        "Time from sending a response to its ACK.",
        SECONDS,
        read=True,
    ),
    Metric(
        "meshctl_proxy_convergence_duration_seconds",
        "histogram",
        ("xds_type",),
        "Time from a change to the last ACK of every connected sidecar that it concerns; one observation per change.",
        SECONDS,
        read=True,
    ),
    Metric(
        "meshctl_xds_streams_behind",
        "gauge",
        ("xds_type",),
        "Streams of sidecars that lack a published change now.",
        read=True,
    ),
    Metric(
        "meshctl_xds_rollouts_total",
        "counter",
        ("outcome",),
        "Changes that a canary tried (started, passed, rolled-back, withdrawn) or pre-flight refused "
        "(preflight-failed), one per group.",
    ),
    Metric(
        "meshctl_xds_groups_held_back", "gauge", (), "Groups in which not every sidecar has the newest configuration."
    ),
    Metric("meshctl_xds_config_size_bytes", "gauge", ("xds_type",), "Size of the largest resource set published."),
    Metric(
        "meshctl_tick_duration_seconds",
        "histogram",
        (),
        "Time of one tick: observe, forecast, plan, record, publish.",
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    ),
    Metric(
        "meshctl_tick_delay_seconds",
        "histogram",
        (),
        "From when a tick was due until it began: what held it up is whatever else the process or the machine did.",
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1, 2.5),
    ),
    Metric(
        "meshctl_ticks_total", "counter", ("outcome",), "Ticks by outcome (ok, silent: no sidecar reported, failed)."
    ),
    Metric(
        "meshctl_forecast_error_ratio",
        "gauge",
        ("service",),
        "Loss of the acting forecast over that of last value; below 1 it has skill.",
    ),
    Metric("meshctl_forecasts_total", "counter", ("model",), "Forecasts made, by the model that was chosen."),
    Metric(
        "meshctl_forecast_skill",
        "gauge",
        ("service", "steps"),
        "1 - loss of the mixture over that of last value, by steps ahead; gates open and close by it.",
    ),
    Metric(
        "meshctl_forecast_coverage",
        "gauge",
        ("service",),
        "Share of values that lately were at or below the 0.95 quantile as forecast, over all steps.",
    ),
    Metric(
        "meshctl_forecast_outlook",
        "gauge",
        ("service", "span", "quantile"),
        "Requests per second that are forecast for the end of a span (1h, 1d): expected (0.5), and 0.9 quantile.",
    ),
    Metric(
        "meshctl_forecast_drift_total",
        "counter",
        ("service", "cause"),
        "Drifts of demand against what the models learned from (level, season, variance, telemetry hole, skill, "
        "coverage).",
    ),
    Metric("meshctl_forecast_swaps_total", "counter", ("kind",), "Changes of the models in use (promote, undo)."),
    Metric(
        "meshctl_forecast_training_seconds",
        "histogram",
        ("outcome",),
        "CPU time of trainings by outcome (promoted, kept: no better than those in use, failed).",
        (5, 10, 20, 30, 60, 120, 300, 600),
    ),
    Metric("meshctl_decisions_total", "counter", ("policy", "outcome", "kind"), "Decisions recorded."),
    Metric("meshctl_guardrail_blocks_total", "counter", ("rule",), "Decisions that a guardrail changed."),
    Metric("meshctl_faults_active", "gauge", (), "Faults in force now."),
    Metric("meshctl_telemetry_rejected_points", "gauge", (), "Data points from unknown senders, since start."),
    Metric(
        "meshctl_load_reports",
        "gauge",
        ("outcome",),
        "Load reports (LRS) since start: used, or redundant because the sidecar sends OTLP, too.",
    ),
    Metric(
        "meshctl_service_demand", "gauge", ("service",), "Requests per second offered to a service over the last tick."
    ),
    Metric("meshctl_service_replicas", "gauge", ("service", "state"), "Replicas of a service (ready, desired)."),
)


class Metrics:
    """The instruments of one control plane, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        self._provider = MeterProvider(metric_readers=[reader], views=list(_views()))
        meter = self._provider.get_meter("meshctl")
        self._instruments: dict[str, Any] = {}
        for metric in METRICS:
            if metric.read:
                continue
            make = {"counter": meter.create_counter, "gauge": meter.create_gauge, "histogram": meter.create_histogram}
            name = (
                metric.name.removesuffix("_total").removesuffix("_seconds") if metric.kind != "gauge" else metric.name
            )
            unit = "s" if metric.kind == "histogram" else ""
            self._instruments[metric.name] = make[metric.kind](name, unit=unit, description=metric.description)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Increase a counter."""
        counter: Counter = self._instruments[name]
        counter.add(amount, labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._instruments[name].set(value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        histogram: Histogram = self._instruments[name]
        histogram.record(value, labels)

    def include(self, collector: Collector) -> None:
        """Read the ``read`` metrics from ``collector`` whenever somebody asks."""
        self._registry.register(collector)

    def text(self) -> bytes:
        """Prometheus' text exposition format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        self._provider.shutdown()


def reference() -> str:
    """The reference page (Markdown)."""
    rows = [f"| `{m.name}` | {m.kind} | {_labels(m)} | {m.description} |" for m in METRICS]
    head = ["# Metrics", "", "Served at `/metrics` in Prometheus' text format, beside the Python process metrics.", ""]
    return "\n".join([*head, "| metric | type | labels | meaning |", "|---|---|---|---|", *rows, ""])


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels) or "-"


def _views() -> Iterable[View]:
    for metric in METRICS:
        if metric.buckets and not metric.read:
            name = metric.name.removesuffix("_seconds")
            yield View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(metric.buckets))
