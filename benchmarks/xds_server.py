"""The xDS server under a load client: what one change costs, and how long it takes to reach the last stream.

Run: ``python benchmarks/xds_server.py --port 18000 --clusters 100 [--per-node] [--nodes N]``. It is
the production code path (protocol machines, ordering, status, events, metrics), fed with made-up clusters instead of a
mesh, and is driven by a load client through lines on standard input:

    bump | bumpall   change one cluster | all but one; prints "bumped UNIXTIME VERSION" just before publishing
    stat             prints "stat cpu_s=.. rss_mb=.. requests=.. nacks=.."
    quit             exit (so does the end of standard input)

The nodes are ``node-0`` to ``node-<N-1>``. With ``--per-node`` each has a snapshot of its own, and no two share their
clusters: one cluster is the node's own. Without, all nodes share one snapshot. With ``--workers`` above 1 several
processes share the port, and the figures are those of all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import psutil
import uvloop
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost

from meshctl.server.metrics import Metrics
from meshctl.server.watching import KINDS, XdsWatch
from meshctl.server.xds_metrics import XdsCollector
from xds.model import Address
from xds.server import Settings, ShardedServer, XdsServer, collector, heap
from xds.snapshot import Resource, ResourceSet, Snapshot, resource, resource_set, snapshot
from xds.translate.messages import ads, socket_address
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

HOST = "127.0.0.1"


def cluster(name: str, max_requests: int) -> Resource:
    """An EDS cluster whose threshold is what a change changes."""
    thresholds = CircuitBreakersThresholds(
        max_connections=1024, max_pending_requests=1024, max_requests=max_requests, max_retries=3
    )
    message = Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ads()),
        connect_timeout=datetime.timedelta(seconds=1),
        circuit_breakers=CircuitBreakers(thresholds=[thresholds]),
    )
    return resource(name, message)


def assignment(name: str) -> Resource:
    """Two endpoints."""
    hosts = [LbEndpoint(endpoint=Endpoint(address=socket_address(Address(f"10.0.0.{host}", 8080)))) for host in (1, 2)]
    message = ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=hosts)])
    return resource(name, message)


def route_configuration(targets: list[str]) -> Resource:
    """One route per cluster."""
    table = [Route(match=RouteMatch(prefix=f"/{name}/"), route=RouteAction(cluster=name)) for name in targets]
    message = RouteConfiguration(name="routes-0", virtual_hosts=[VirtualHost(name="all", domains=["*"], routes=table)])
    return resource("routes-0", message)


@dataclass
class Content:
    """What is published: ``count`` clusters, for all nodes together or ``per_node``."""

    count: int
    per_node: bool
    generation: int = 0

    def __post_init__(self) -> None:
        names = self.names()
        self._clusters = resource_set(CLUSTER, [cluster(name, 1024) for name in names])
        self._own: dict[str, ResourceSet] = {}
        listener = Listener(name="listener-0", address=socket_address(Address(HOST, 10000)))
        self._rest = (
            resource_set(ENDPOINT, [assignment(name) for name in names]),
            resource_set(LISTENER, [resource("listener-0", listener)]),
            resource_set(ROUTE, [route_configuration(names)]),
        )

    def names(self) -> list[str]:
        return [f"svc-{number}" for number in range(self.count)]

    def change(self, names: list[str]) -> None:
        """Give these clusters another threshold, everywhere."""
        self.generation += 1
        changed = [cluster(name, 1024 + self.generation) for name in names]
        self._clusters = self._clusters.replacing(changed)
        self._own = {node_id: one.replacing(changed) for node_id, one in self._own.items()}

    def snapshots(self, node_ids: list[str]) -> Mapping[str, Snapshot]:
        """By node id."""
        if not self.per_node:
            return dict.fromkeys(node_ids, snapshot(self._clusters, *self._rest))
        self._own = self._own or {node_id: self._differing(number) for number, node_id in enumerate(node_ids)}
        return {node_id: snapshot(self._own[node_id], *self._rest) for node_id in node_ids}

    def _differing(self, number: int) -> ResourceSet:
        """The last cluster is the node's own."""
        return self._clusters.replacing([cluster(self.names()[-1], 2_000_000 + number)])


async def serve(options: argparse.Namespace) -> None:
    content, metrics = Content(options.clusters, options.per_node), Metrics()
    node_ids = [f"node-{number}" for number in range(options.nodes)]
    server = made(options.workers, XdsWatch(metrics))
    metrics.include(XdsCollector(server.status))
    await server.start(HOST, options.port)
    server.publish(content.snapshots(node_ids))
    collector.calm()
    heap.keep()
    say("ready")
    async for command in commands():
        if command == "stat":
            say(stat(server))
        elif command in ("bump", "bumpall"):
            content.change(content.names()[:-1] if command == "bumpall" else content.names()[:1])
            wanted = content.snapshots(node_ids)
            say(f"bumped {time.time():.6f} {content.generation}")
            server.publish(wanted)
            say(f"done {time.time():.6f} {content.generation}")
        elif command == "quit":
            break
    await server.stop(0)


def made(workers: int, watch: XdsWatch) -> XdsServer | ShardedServer:
    """In this process or in several."""
    if workers == 1:
        return XdsServer(on_event=watch.on_xds, kinds=KINDS, settings=Settings())
    return ShardedServer(workers, on_event=watch.on_xds, kinds=KINDS, settings=Settings())


def stat(server: XdsServer | ShardedServer) -> str:
    own = psutil.Process()
    processes = [own, *(own.children() if isinstance(server, ShardedServer) else ())]  # looks at all there are: dear
    used = [process.cpu_times() for process in processes]
    figures = {
        "cpu_s": sum(times.user + times.system for times in used),
        "rss_mb": sum(process.memory_info().rss for process in processes) / 1e6,
        "requests": sum(server.status.acks.values()) + server.status.connects,
        "nacks": sum(server.status.nacks.values()),
    }
    return "stat " + " ".join(f"{name}={value:.6f}" for name, value in figures.items())


async def commands() -> AsyncIterator[str]:
    """Lines of standard input, until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=18000, help="listen on this port of the loopback address")
    parser.add_argument("--clusters", type=int, default=100, help="how many clusters there are")
    parser.add_argument("--nodes", type=int, default=3000, help="node-0 to node-<N-1> are known")
    parser.add_argument("--per-node", action="store_true", help="a snapshot per node instead of one for all")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
