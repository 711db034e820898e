"""Encoded resources as people and scripts read them: the JSON form of protobuf, nested messages unpacked."""

from __future__ import annotations

from typing import Any

from envoy_data_plane.message_pool import default_message_pool


def to_json(type_url: str, body: bytes) -> dict[str, Any]:
    """A resource in protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/).

    Raises KeyError for a type that the Envoy API does not have.
    """
    return dict(default_message_pool.url_to_type[type_url].parse(body).to_dict())
