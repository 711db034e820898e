"""A request is read the same whether its names were met before or not, and whatever its fields' order."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from xds import _repeated_names, codec
from xds import _wire_pb2 as wire
from xds.errors import CodecError
from xds.types import CLUSTER, ENDPOINT

#: Long enough to be worth it; some look like what the look-up searches for.
NAMES = st.lists(st.sampled_from(["a", CLUSTER, '"' + ENDPOINT, "\x22\x05" + ENDPOINT, "n" * 40]), max_size=40)


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """A request in up to three parts, as a client may concatenate them: the last of a field wins, names add up."""
    made = b""
    for _ in range(draw(st.integers(1, 3))):
        one = wire.DiscoveryRequest(
            type_url=draw(st.sampled_from(["", CLUSTER, ENDPOINT])),
            resource_names=draw(NAMES),
            version_info=draw(st.sampled_from(["", "v1", CLUSTER])),
            response_nonce=draw(st.sampled_from(["", "n1"])),
        )
        if draw(st.booleans()):
            one.node.id = draw(st.sampled_from(["n", "node-2"]))
        if draw(st.booleans()):
            one.error_detail.message = draw(st.sampled_from(["", "no", CLUSTER]))
        made += one.SerializeToString() + b"\x0a\x00" * draw(st.integers(0, 1))  # an empty version is one, too
    return made


def outcome(data: bytes) -> object:
    """What is read the usual way."""
    try:
        message = wire.DiscoveryRequest.FromString(data)
    except DecodeError:
        return CodecError
    error = codec._error(message)
    names, node = tuple(message.resource_names), codec._node(message)
    return (message.type_url, names, message.version_info, message.response_nonce, error, node)


def check(data: bytes) -> None:
    expected = outcome(data)
    for _ in range(2):  # unknown, then known
        if expected is CodecError:
            with pytest.raises(CodecError, match=f"{len(data)} bytes are not a DiscoveryRequest"):
                codec.decode_sotw_request(data)
        else:
            assert codec.decode_sotw_request(data) == expected


@given(parts())
def test_known_names_change_nothing(data: bytes) -> None:
    check(data)


@given(parts(), st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
def test_nor_do_they_in_what_is_broken(data: bytes, where: int, byte: int, cut: int) -> None:
    spoilt = bytearray(data[: len(data) - cut % (len(data) + 1) // 4])
    if spoilt:
        spoilt[where % len(spoilt)] = byte
    check(bytes(spoilt))


def test_a_group_shares_its_names() -> None:
    names = [f"service-{number}" for number in range(200)]
    requests = [
        wire.DiscoveryRequest(type_url=ENDPOINT, resource_names=names, response_nonce=nonce) for nonce in ("a", "b")
    ]
    first, second = (codec.decode_sotw_request(one.SerializeToString()) for one in requests)
    assert first.names is second.names
    assert (first.nonce, second.nonce) == ("a", "b")


def test_what_is_kept_is_bounded() -> None:
    heads = _repeated_names._heads
    for number in range(60):
        names = [f"service-{number}-{one}" for one in range(3_000)]
        codec.decode_sotw_request(wire.DiscoveryRequest(type_url=ENDPOINT, resource_names=names).SerializeToString())
        assert heads.size == sum(map(len, heads)) <= _repeated_names._MOST
    assert len(heads) > 10
    assert max(map(len, heads)) <= _repeated_names._LONGEST
