"""Checks over more than one field of a mesh file, and of holidays. Pure, but for asking whether a trace exists and what
the tz database knows.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Iterator

from meshctl.config.model import ListenConfig, MeshConfig, ServiceConfig, XdsListen
from meshctl.config.problems import Problem, suggestion
from meshctl.config.scalars import format_duration


def check(config: MeshConfig) -> list[Problem]:
    """Every problem between fields, in the order of the file's sections."""
    rules = (_services, _routes, _listeners, _leases, _timing, _guardrails, _retraining, _history, _holidays)
    return [problem for rule in rules for problem in rule(config)]


def _services(config: MeshConfig) -> Iterator[Problem]:
    for name, service in config.services.items():
        if name == config.ingress.name:
            yield Problem(("services", name), "the ingress has this name; rename one (ingress.name)")
        yield from _replicas(name, service)
        yield from _calls(name, service, config)


def _replicas(name: str, service: ServiceConfig) -> Iterator[Problem]:
    low, high = service.replicas.min, service.replicas.max
    if low > high:
        path = ("services", name, "replicas", "min")
        yield Problem(path, f"expected at most max ({high}), got {low}; lower min or raise max")
    per_try = service.retries.per_try_timeout
    if per_try is not None and per_try > service.timeout:
        bound, got = format_duration(service.timeout), format_duration(per_try)
        message = f"expected at most the timeout ({bound}), got {got}; lower it or raise timeout"
        yield Problem(("services", name, "retries", "per_try_timeout"), message)


def _calls(name: str, service: ServiceConfig, config: MeshConfig) -> Iterator[Problem]:
    counts = Counter(service.calls)
    for index, callee in enumerate(service.calls):
        path = ("services", name, "calls", index)
        if callee == name:
            yield Problem(path, f"'{name}' calls itself; remove it (cycles over other services are fine)")
        elif callee not in config.services:
            yield Problem(path, f"unknown service '{callee}'; {suggestion(callee, config.services)}")
        elif counts[callee] > 1 and service.calls.index(callee) != index:
            yield Problem(path, f"'{callee}' is named twice; remove one")


def _routes(config: MeshConfig) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, route in enumerate(config.ingress.routes):
        path = ("ingress", "routes", index)
        if route.service not in config.services:
            yield Problem(
                (*path, "service"), f"unknown service '{route.service}'; {suggestion(route.service, config.services)}"
            )
        if route.prefix in seen:
            yield Problem(
                (*path, "prefix"), f"'{route.prefix}' is taken by routes[{seen[route.prefix]}]; remove one of the two"
            )
        seen.setdefault(route.prefix, index)


def _listeners(config: MeshConfig) -> Iterator[Problem]:
    xds, http = config.controller.xds, config.controller.http
    if xds.port == http.port != 0 and _overlap(xds, http):
        path = ("controller", "http", "port")
        yield Problem(path, f"{http.port} is taken by controller.xds; choose another port")
    yield from _identities(config)
    if config.controller.allow_remote:
        yield from _remote(xds)
        return
    for name, listen in (("xds", xds), ("http", http)):
        if not ipaddress.ip_address(listen.address).is_loopback:
            message = f"{listen.address} is reachable from outside; use 127.0.0.1, or set controller.allow_remote: true"
            yield Problem(("controller", name, "address"), message)


def _remote(xds: XdsListen) -> Iterator[Problem]:
    """Others may reach the port: only with TLS, unless plaintext is asked for by name."""
    if xds.tls is None and not xds.plaintext and not ipaddress.ip_address(xds.address).is_loopback:
        message = f"missing: {xds.address} is reachable from outside; name the files of certificate, key and client_ca"
        yield Problem(("controller", "xds", "tls"), f"{message}, or set controller.xds.plaintext: true")


def _identities(config: MeshConfig) -> Iterator[Problem]:
    xds = config.controller.xds
    if xds.tls is not None:
        if xds.plaintext:
            yield Problem(("controller", "xds", "plaintext"), "the port has TLS; remove this or controller.xds.tls")
        return
    for name, given in (("identities", xds.identities), ("trust_domain", xds.trust_domain)):
        if given:
            yield Problem(("controller", "xds", name), "nobody proves an identity without TLS; set controller.xds.tls")


def _overlap(one: ListenConfig, other: ListenConfig) -> bool:
    addresses = {ipaddress.ip_address(one.address), ipaddress.ip_address(other.address)}
    return len(addresses) == 1 or any(address.is_unspecified for address in addresses)


def _leases(config: MeshConfig) -> Iterator[Problem]:
    tick, lease = config.controller.tick, config.controller.leases.limits
    if lease < 2 * tick:
        bound, got = format_duration(2 * tick), format_duration(lease)
        message = f"expected at least two ticks ({bound}), got {got}; raise it or shorten controller.tick"
        yield Problem(("controller", "leases", "limits"), message)


def _timing(config: MeshConfig) -> Iterator[Problem]:
    tick, day = config.controller.tick, config.forecast.day
    if day < 2 * tick:
        message = f"expected at least two ticks ({format_duration(2 * tick)}), got {format_duration(day)}; raise it"
        yield Problem(("forecast", "day"), message)


def _guardrails(config: MeshConfig) -> Iterator[Problem]:
    step, band = config.guardrails.limit_step, config.guardrails.dead_band
    if step <= band:
        message = f"expected more than dead_band ({band:g}), got {step:g}, which never tightens a limit; raise it"
        yield Problem(("guardrails", "limit_step"), message)


def _retraining(config: MeshConfig) -> Iterator[Problem]:
    """A training that does not fit between two would never end."""
    forecast, retrain = config.forecast, config.forecast.retrain
    path = ("forecast", "retrain")
    share = min(retrain.cpu_share, retrain.minutes_per_hour / 60)
    least = forecast.train_seconds / share
    if retrain.every < least:
        message = (
            f"expected at least {format_duration(math.ceil(least))}, got {format_duration(retrain.every)}: so long do "
            f"train_seconds ({forecast.train_seconds:g}) take within cpu_share and minutes_per_hour; raise one of them"
        )
        yield Problem((*path, "every"), message)
    if retrain.pause > retrain.every:
        bound, got = format_duration(retrain.every), format_duration(retrain.pause)
        yield Problem((*path, "pause"), f"expected at most every ({bound}), got {got}; lower it or raise every")


def _history(config: MeshConfig) -> Iterator[Problem]:
    history = config.forecast.history
    if history is None:
        return
    path = ("forecast", "history")
    if history.service not in config.services:
        yield Problem(
            (*path, "service"), f"unknown service '{history.service}'; {suggestion(history.service, config.services)}"
        )
    if not history.trace.is_file():
        yield Problem((*path, "trace"), f"no such file: {history.trace}; paths start at the folder of the mesh file")


def _holidays(config: MeshConfig) -> Iterator[Problem]:
    given = config.forecast.holidays
    if given is None:
        return
    from forecasting.calendar import Holidays, SettingError  # noqa: PLC0415 - heavy

    try:
        Holidays(given.country, given.subdivision, given.zone)
    except SettingError as error:
        yield Problem(tuple(error.setting.split(".")), error.problem)
