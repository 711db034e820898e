"""The mesh file: ``load`` reads it, ``schema`` describes it, ``resolved`` says where each value came from.

Precedence: flag > ``MESHCTL_SECTION__FIELD`` (:mod:`meshctl.config.environment`) > file > default. Errors name the
file, the line and the field of every problem at once. The sections are in :mod:`meshctl.config.model`.
"""

from meshctl.config.environment import parse_value
from meshctl.config.loading import load, resolved, schema
from meshctl.config.model import (
    ControllerConfig,
    ForecastConfig,
    GuardrailsConfig,
    HistoryConfig,
    HolidaysConfig,
    IngressConfig,
    LimitsConfig,
    MeshConfig,
    PlatformConfig,
    Replicas,
    Retries,
    RouteConfig,
    RouteLimit,
    ScalingConfig,
    ServiceConfig,
    Slo,
)
from meshctl.config.scalars import format_duration, parse_duration
from meshctl.errors import MeshConfigError

__all__ = [
    "ControllerConfig",
    "ForecastConfig",
    "GuardrailsConfig",
    "HistoryConfig",
    "HolidaysConfig",
    "IngressConfig",
    "LimitsConfig",
    "MeshConfig",
    "MeshConfigError",
    "PlatformConfig",
    "Replicas",
    "Retries",
    "RouteConfig",
    "RouteLimit",
    "ScalingConfig",
    "ServiceConfig",
    "Slo",
    "format_duration",
    "load",
    "parse_duration",
    "parse_value",
    "resolved",
    "schema",
]
