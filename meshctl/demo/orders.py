"""Business metrics of the demo's applications, pushed to the control plane by the OpenTelemetry SDK.

Only a service that counts something imports the SDK. A control plane that is away must disturb neither requests (the
export has its own thread and a short timeout) nor the log (the SDK would write a traceback every second).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

#: Seconds between two exports, and how long one may take.
INTERVAL = 1.0


class BusinessMetrics(Protocol):
    """Counters by name."""

    def count(self, name: str) -> None: ...

    def close(self) -> None: ...


class Nowhere:
    """For services without business metrics."""

    def count(self, name: str) -> None:
        """Nothing counts here."""

    def close(self) -> None:
        """Nothing to close."""


class Pushed:
    """Counters that the SDK exports every second."""

    def __init__(self, provider: MeterProvider) -> None:
        self._provider = provider
        self._meter = provider.get_meter("meshctl.demo")
        self._counters = {"orders": self._meter.create_counter("orders", unit="1", description="orders placed")}

    def count(self, name: str) -> None:
        self._counters[name].add(1)

    def close(self) -> None:
        self._provider.shutdown(timeout_millis=int(INTERVAL * 1000))


def connect(service: str, instance: str, address: str | None) -> BusinessMetrics:
    """Counters pushed to ``address`` (HOST:PORT, plain text), or into the void if it is None."""
    if address is None:
        return Nowhere()
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    resource = Resource.create({"service.name": service, "service.instance.id": instance})
    exporter = OTLPMetricExporter(endpoint=address, insecure=True, timeout=INTERVAL)
    reader = PeriodicExportingMetricReader(exporter, INTERVAL * 1000, INTERVAL * 1000)
    return Pushed(MeterProvider([reader], resource))
