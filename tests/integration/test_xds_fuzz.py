"""Requests and connections that nobody should send, at a live server: it lives on, does not grow, and serves others."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import xds_fuzz_inputs as inputs
from benchmarks.xds_fuzz import fuzz, told
from xds import codec, status_codec
from xds.errors import CodecError, RemoteError

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.mark.timeout(240)
async def test_nothing_that_is_sent_costs_more_than_its_own_stream(tmp_path: Path) -> None:
    report = await fuzz(tmp_path, seconds=90, most=3_000, seed=20261125, warm_up=1_000)
    said = told(report)
    assert not report.crashed, said
    assert report.after["errors"] == [], said
    assert sum(report.inputs.values()) >= 3_000, said
    assert len(report.inputs) == 5, said
    assert {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED"} <= report.answers.keys(), said
    assert report.grown < 100 * MIB, said
    assert report.witness["ended"] == [], said
    assert min(report.changes()) >= 10, said
    assert report.longest_silence() < 10, said


@pytest.mark.parametrize(
    "decode", [codec.decode_sotw_request, codec.decode_delta_request, status_codec.decode_load_message]
)
@given(data=st.binary(max_size=200))
def test_decoders_refuse_bytes_with_their_own_error(decode: object, data: bytes) -> None:
    assert callable(decode)
    with contextlib.suppress(CodecError, RemoteError):
        decode(data)


@given(seed=st.integers())
def test_decoders_refuse_requests_that_are_almost_right(seed: int) -> None:
    data = inputs.request(Random(seed))
    for decode in (codec.decode_sotw_request, codec.decode_delta_request):
        with contextlib.suppress(CodecError):
            decode(data)
