"""Small Envoy messages that every resource type is built from."""

from __future__ import annotations

from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import (
    Address as EnvoyAddress,
)
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    RuntimeFractionalPercent,
    SocketAddress,
)
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType
from envoy_data_plane.google.protobuf import Any

from xds import codec
from xds.model import Address


def packed(message: betterproto2.Message) -> Any:
    """``message`` in an ``Any``, under its own type URL."""
    return Any(type_url=codec.type_url(message), value=codec.encode(message))


def seconds(value: float) -> timedelta:
    """A duration of ``value`` seconds, to the microsecond."""
    return timedelta(seconds=value)


def socket_address(address: Address) -> EnvoyAddress:
    return EnvoyAddress(socket_address=SocketAddress(address=address.host, port_value=address.port))


def ads() -> ConfigSource:
    """The stream that this very resource came by."""
    return ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)


def percent(value: int) -> FractionalPercent:
    return FractionalPercent(numerator=value, denominator=FractionalPercentDenominatorType.HUNDRED)


def runtime_percent(default: int, key: str = "") -> RuntimeFractionalPercent:
    """``default`` percent unless the runtime says something else under ``key``."""
    return RuntimeFractionalPercent(default_value=percent(default), runtime_key=key)
