"""The HTTP API of a running control plane: versioned, JSON, loopback by default.

Reads are open to whoever reaches the port; changes need the token (:mod:`meshctl.server.auth`). Handlers only translate
between HTTP and the loop; what they say is made in :mod:`meshctl.server.views`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from forecasting.errors import ForecastingError
from meshctl.actuators.xds import XdsPublisher
from meshctl.control.arms import Arms
from meshctl.control.faults import MAX_DURATION, FaultConflictError, FaultRecord
from meshctl.control.journal import Journal
from meshctl.control.loop import Loop
from meshctl.control.retraining import Retrainer
from meshctl.errors import PlatformError
from meshctl.history.database import Database
from meshctl.server import auth, parse, views
from meshctl.server.metrics import Metrics
from meshctl.server.parse import RequestError
from xds.errors import XdsError
from xds.model import Fault
from xds.server import ShardedServer, XdsServer

_MAX_BODY = 1 << 20
OUTLOOK_QUANTILES = (0.5, 0.9)
"""What is measured of forecasts of an hour and a day: the expected value, and what one value in ten exceeds."""
TYPES = {
    "cluster": "cds",
    "listener": "lds",
    "route": "rds",
    "endpoint": "eds",
    "runtime": "rtds",
    "secret": "sds",
    "extension": "ecds",
    "scoped-route": "srds",
    "virtual-host": "vhds",
}
_STATUS = {"running", "passed", "deviated", "inconclusive", "failed"}


@dataclass(frozen=True)
class Context:
    """What the handlers read and change."""

    loop: Loop
    xds: XdsServer | ShardedServer
    publisher: XdsPublisher
    database: Database
    journal: Journal
    retrainer: Retrainer
    arms: Arms
    metrics: Metrics
    clock: Callable[[], float]
    status: Callable[[], dict[str, Any]]
    ready: Callable[[], dict[str, bool]]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


def application(context: Context, token: str, names: frozenset[str] = frozenset()) -> web.Application:
    """The API as an aiohttp application."""
    app = web.Application(middlewares=[_errors, auth.guard(token, names=names)], client_max_size=_MAX_BODY)
    handlers = Handlers(context)
    app.add_routes(
        [
            web.get("/livez", handlers.livez),
            web.get("/readyz", handlers.readyz),
            web.get("/metrics", handlers.metrics),
            web.get("/v1/status", handlers.status),
            web.get("/v1/services", handlers.services),
            web.get("/v1/graph", handlers.graph),
            web.get("/v1/proxies", handlers.proxies),
            web.get("/v1/proxies/{node}", handlers.proxy),
            web.get("/v1/proxies/{node}/config/{type}", handlers.proxy_config),
            web.get("/v1/forecasts", handlers.forecasts),
            web.get("/v1/models", handlers.models),
            web.post("/v1/models/undo", handlers.undo_model),
            web.get("/v1/decisions", handlers.decisions),
            web.get("/v1/decisions/{id}", handlers.decision),
            web.get("/v1/events", handlers.events),
            web.get("/v1/timeline", handlers.timeline),
            web.get("/v1/arms", handlers.arms),
            web.get("/v1/slo/{service}", handlers.slo),
            web.post("/v1/pause", handlers.pause),
            web.post("/v1/resume", handlers.resume),
            web.get("/v1/faults", handlers.faults),
            web.post("/v1/faults", handlers.inject),
            web.get("/v1/faults/{id}", handlers.fault),
            web.delete("/v1/faults/{id}", handlers.end_fault),
            web.get("/v1/experiments", handlers.experiments),
            web.post("/v1/experiments", handlers.begin_experiment),
            web.get("/v1/experiments/{id}", handlers.experiment),
            web.patch("/v1/experiments/{id}", handlers.update_experiment),
        ]
    )
    return app


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return auth.refuse(error.status, error.code, str(error))
    except FaultConflictError as error:
        return auth.refuse(409, "conflict", str(error))
    except PlatformError as error:
        return auth.refuse(503, "platform", str(error))
    except XdsError as error:
        return auth.refuse(400, "invalid", str(error))
    except web.HTTPException as error:
        return auth.refuse(
            error.status, error.reason.lower().replace(" ", "_"), f"{request.method} {request.path}: {error.reason}"
        )


class Handlers:
    """One method per endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = context.loop

    # -- health --------------------------------------------------------------------------------------------------

    async def livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        checks = self._context.ready()
        ok = all(checks.values())
        lines = [f"[{'+' if passed else '-'}]{name}" for name, passed in checks.items()]
        text = "\n".join([*lines, "ok" if ok else "not ready"]) if "verbose" in request.query or not ok else "ok"
        return web.Response(text=text + "\n", status=200 if ok else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        metrics = self._context.metrics
        for kind, size in self._context.publisher.sizes().items():
            metrics.set("meshctl_xds_config_size_bytes", size, xds_type=kind)
        await self._measure_outlook()
        return web.Response(body=metrics.text(), content_type="text/plain", charset="utf-8")

    async def _measure_outlook(self) -> None:
        """An hour and a day are made to agree when somebody asks: it takes half a millisecond per service, and no tick
        needs it.
        """
        forecasts, metrics = self._loop.forecasts, self._context.metrics
        found = await asyncio.to_thread(forecasts.ahead, list(forecasts.selected))
        for name, spans in found.items():
            for span, one in spans.items():
                for quantile in OUTLOOK_QUANTILES:
                    value = one.forecast.at(len(one.forecast.values), quantile)
                    labels = {"service": name, "span": span, "quantile": f"{quantile:g}"}
                    metrics.set("meshctl_forecast_outlook", value, **labels)

    async def status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._context.status())

    # -- what is -------------------------------------------------------------------------------------------------

    async def services(self, _request: web.Request) -> web.Response:
        observation = self._loop.observation
        if observation is None:
            return web.json_response({"services": [], "time": None})
        rows = [
            views.service(self._loop, seen, self._good_ratio(name, observation.time))
            for name, seen in observation.services.items()
            if name in self._loop.config.services
        ]
        return web.json_response({"services": rows, "time": observation.time})

    async def graph(self, _request: web.Request) -> web.Response:
        observation = self._loop.observation
        if observation is None:
            return web.json_response({"edges": []})
        demand = {name: seen.demand for name, seen in observation.services.items()}
        rows = [views.edge(self._loop, seen, demand.get(seen.caller, 0.0)) for seen in observation.edges]
        return web.json_response({"edges": rows})

    async def proxies(self, _request: web.Request) -> web.Response:
        """Who is connected or should be; a replica that was taken away is neither."""
        now, publisher = self._context.clock(), self._context.publisher
        nodes = (
            n for n in self._context.xds.status.nodes() if n.connected or publisher.snapshot(n.node_id) is not None
        )
        return web.json_response({"proxies": [views.proxy(node, now) for node in nodes]})

    async def proxy(self, request: web.Request) -> web.Response:
        node = self._context.xds.status.node(request.match_info["node"])
        if node is None:
            raise _no_proxy(request.match_info["node"])
        return web.json_response(views.proxy(node, self._context.clock()))

    async def proxy_config(self, request: web.Request) -> web.Response:
        node, kind = request.match_info["node"], request.match_info["type"]
        if kind not in TYPES:
            raise RequestError(404, "not_found", f"no configuration type {kind!r}; one of {', '.join(TYPES)}")
        found = self._context.publisher.describe(node, TYPES[kind])
        if found is None:
            raise _no_proxy(node)
        return web.json_response({"node_id": node, "type": kind, **found})

    async def forecasts(self, request: web.Request) -> web.Response:
        now, wanted = self._context.clock(), request.query.get("service")
        self._known_service(wanted)
        chosen, drift = self._loop.forecasts.selected, self._loop.forecasts.watch.found
        graph = self._loop.forecasts.graph.callers()
        names = [name for name in chosen if wanted in (None, name)]
        outlook = await asyncio.to_thread(self._loop.forecasts.ahead, names)
        rows = [
            views.forecast(chosen[name], drift.get(name), now)
            | {"callers": views.callers(graph.get(name, {}))}
            | {"outlook": [views.ahead(one, now) for one in outlook[name].values()]}
            for name in names
        ]
        return web.json_response({"forecasts": rows, "skipped": self._loop.forecasts.outlook.skipped})

    async def models(self, _request: web.Request) -> web.Response:
        retrainer = self._context.retrainer
        found = await asyncio.to_thread(views.models, retrainer.registry)
        return web.json_response({**found, "training": retrainer.progress()})

    async def undo_model(self, request: web.Request) -> web.Response:
        body = await parse.body(request)
        try:
            swap = await self._context.retrainer.undo(str(body.get("reason") or ""))
        except ForecastingError as error:
            raise RequestError(409, "conflict", str(error)) from error
        return web.json_response(asdict(swap))

    async def timeline(self, request: web.Request) -> web.Response:
        return web.json_response({"ticks": self._loop.timeline.after(parse.integer(request.query, "after", -1))})

    # -- what was decided ----------------------------------------------------------------------------------------

    async def decisions(self, request: web.Request) -> web.Response:
        query = request.query
        rows = await asyncio.to_thread(
            self._context.database.decisions,
            limit=parse.integer(query, "limit", 50),
            service=query.get("service"),
            kind=query.get("kind"),
            after=parse.integer(query, "after", 0),
        )
        return web.json_response({"decisions": [{k: v for k, v in row.items() if k != "inputs"} for row in rows]})

    async def decision(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._context.database.decision, parse.identity(request))
        return web.json_response(
            parse.found(found, f"no decision {request.match_info['id']}; see: meshctl decision list")
        )

    async def events(self, request: web.Request) -> web.Response:
        after, limit = parse.integer(request.query, "after", 0), parse.integer(request.query, "limit", 500)
        rows = await asyncio.to_thread(self._context.database.events, after=after, limit=limit)
        return web.json_response({"events": list(rows)})

    # -- service levels ------------------------------------------------------------------------------------------

    async def arms(self, request: web.Request) -> web.Response:
        name = self._known_service(request.query.get("service"))
        if name is None:
            raise RequestError(400, "invalid", "service: expected the name of an entry service")
        now = self._context.clock()
        since = parse.number(request.query, "since", now - 60.0)
        until = parse.number(request.query, "until", now)
        return web.json_response(
            self._context.arms.since(name, since, until, self._loop.config.services[name].slo.latency)
        )

    async def slo(self, request: web.Request) -> web.Response:
        name = self._known_service(request.match_info["service"]) or ""
        window = parse.number(request.query, "window", 30.0)
        counts = self._context.arms.slo(
            name, self._context.clock() - window, self._loop.config.services[name].slo.latency
        )
        return web.json_response(views.slo(self._loop.config, name, window, counts))

    def _good_ratio(self, name: str, now: float) -> float | None:
        requests, good = self._context.arms.slo(name, now - 60.0, self._loop.config.services[name].slo.latency)
        return good / requests if requests else None

    # -- changes -------------------------------------------------------------------------------------------------

    async def pause(self, request: web.Request) -> web.Response:
        reason = str((await parse.body(request)).get("reason") or "paused by hand")
        self._loop.pulse.paused = reason
        self._context.journal.event("control", "plan", f"paused: {reason}")
        return web.json_response({"paused": True, "reason": reason})

    async def resume(self, _request: web.Request) -> web.Response:
        self._loop.pulse.paused = None
        self._context.journal.event("control", "plan", "resumed")
        return web.json_response({"paused": False})

    # -- faults --------------------------------------------------------------------------------------------------

    async def faults(self, _request: web.Request) -> web.Response:
        now = self._context.clock()
        rows = [views.fault(record, now) for record in self._loop.faults.records() if record.active(now)]
        return web.json_response({"faults": rows})

    async def inject(self, request: web.Request) -> web.Response:
        body = await parse.body(request)
        wanted, duration = self._fault_of(body)
        nodes = [r.node_id for r in self._loop.replicas if r.service == wanted.service and r.phase == "ready"]
        if not nodes:
            raise RequestError(409, "no_replicas", f"{wanted.service} has no ready replica to inject a fault into")
        record = self._loop.faults.inject(
            wanted, nodes, duration=duration, now=self._context.clock(), experiment=body.get("experiment")
        )
        self._loop.lease()
        self._keep(record)
        self._context.journal.event(
            "fault",
            wanted.service,
            f"{wanted.kind} {wanted.percent} % of the treatment arm ({wanted.treatment_percent} % of requests) "
            f"at {wanted.service} for {duration:g} s",
            id=record.id,
            expires=record.ends,
        )
        return web.json_response(views.fault(record, self._context.clock()), status=201)

    async def fault(self, request: web.Request) -> web.Response:
        record = self._loop.faults.get(request.match_info["id"])
        if record is not None:
            return web.json_response(views.fault(record, self._context.clock()))
        kept = await asyncio.to_thread(self._context.database.fault, request.match_info["id"])
        message = f"no fault {request.match_info['id']!r}; active ones: GET /v1/faults"
        return web.json_response({**parse.found(kept, message), "active": False})

    async def end_fault(self, request: web.Request) -> web.Response:
        now = self._context.clock()
        before = self._loop.faults.get(request.match_info["id"])
        record = self._loop.faults.end(request.match_info["id"], now)
        if record is None or before is None:
            raise RequestError(404, "not_found", f"no fault {request.match_info['id']!r} since this process started")
        if before.active(now):
            self._loop.lease()
            self._keep(record)
            self._context.journal.event(
                "fault", record.fault.service, f"{record.fault.kind} at {record.fault.service} ended", id=record.id
            )
        return web.json_response(views.fault(record, now))

    def _keep(self, record: FaultRecord) -> None:
        """The absolute end of a fault outlives this process; the next one starts with none in force."""
        self._context.database.save_fault(views.fault(record, self._context.clock()))

    def _fault_of(self, body: Mapping[str, Any]) -> tuple[Fault, float]:
        unknown = sorted(
            set(body) - {"service", "kind", "percent", "treatment_percent", "status", "delay", "duration", "experiment"}
        )
        if unknown:
            raise RequestError(400, "invalid", f"{unknown[0]}: unknown field of a fault")
        name = self._known_service(parse.text(body, "service"))
        if body.get("kind") not in ("abort", "delay"):
            raise RequestError(400, "invalid", f"kind: expected abort or delay, got {body.get('kind')!r}")
        wanted = Fault(
            service=name or "",
            kind=body["kind"],
            percent=int(parse.within(body, "percent", 100, 0, 100)),
            treatment_percent=int(parse.within(body, "treatment_percent", 50, 0, 100)),
            status=int(parse.within(body, "status", 503, 200, 599)),
            delay=parse.within(body, "delay", 0.0, 0.0, 600.0),
        )
        if wanted.kind == "delay" and wanted.delay < 0.001:
            raise RequestError(400, "invalid", "delay: expected seconds of at least 0.001 for a delay fault")
        return wanted, parse.within(body, "duration", 10.0, 0.1, MAX_DURATION)

    def _known_service(self, name: str | None) -> str | None:
        if name is not None and name not in self._loop.config.services:
            known = ", ".join(sorted(self._loop.config.services))
            raise RequestError(404, "not_found", f"no service {name!r}; this mesh has {known}")
        return name

    # -- experiments ---------------------------------------------------------------------------------------------

    async def experiments(self, request: web.Request) -> web.Response:
        rows = await asyncio.to_thread(
            self._context.database.experiments, limit=parse.integer(request.query, "limit", 50)
        )
        return web.json_response({"experiments": list(rows)})

    async def experiment(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._context.database.experiment, parse.identity(request))
        return web.json_response(
            parse.found(found, f"no experiment {request.match_info['id']}; see: meshctl chaos list")
        )

    async def begin_experiment(self, request: web.Request) -> web.Response:
        body = await parse.body(request)
        title = parse.text(body, "title")
        record = {
            "title": title,
            "status": "running",
            "started": self._context.clock(),
            "ended": None,
            "score": None,
            "spec": body.get("spec") or {},
            "result": {},
        }
        identity = await asyncio.to_thread(self._context.database.record_experiment, record)
        self._context.journal.event("experiment", title, f"began as number {identity}", id=identity)
        return web.json_response({"id": identity}, status=201)

    async def update_experiment(self, request: web.Request) -> web.Response:
        body, identity = await parse.body(request), parse.identity(request)
        if body.get("status") not in _STATUS:
            raise RequestError(400, "invalid", f"status: expected one of {', '.join(sorted(_STATUS))}")
        known = await asyncio.to_thread(self._context.database.experiment, identity)
        title = str(parse.found(known, f"no experiment {identity}")["title"])
        result = body.get("result") or {}
        change: dict[str, Any] = {"status": body["status"], "result": result, "score": result.get("score")}
        if body["status"] != "running":
            change["ended"] = self._context.clock()
        await asyncio.to_thread(self._context.database.update_experiment, identity, change)
        score = "" if change["score"] is None else f", score {change['score']:.1f}"
        self._context.journal.event("experiment", title, f"{body['status']}{score}", id=identity)
        return web.json_response({"id": identity, "status": body["status"]})


def _no_proxy(node: str) -> RequestError:
    return RequestError(404, "not_found", f"no proxy {node!r}; see: meshctl proxy list")
