"""Which nodes a question is about, and patterns from strangers that cost what they are worth."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds.errors import RemoteError
from xds.matchers import any_of, string_match
from xds.patterns import MAX_PATTERN, compile_pattern

_NAMES = st.text("abAB01-_.x/ ", max_size=12)
_LITERALS = st.sampled_from(["a", "b", "0", "-", r"\.", r"\d", r"\w", r"\S", ".", "[a-c]", "[^ab]", "[-a]", r"[\d_]"])
_PATTERNS = st.recursive(
    _LITERALS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}|{p[1]})"),
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("kind", "text", "yes", "no"),
    [
        ("exact", "catalog-0", "catalog-0", "catalog-00"),
        ("prefix", "catalog-", "catalog-7", "my-catalog-7"),
        ("suffix", "-0", "catalog-0", "catalog-0b"),
        ("contains", "talo", "catalog-0", "cart-0"),
        ("safe_regex", r"catalog-\d+", "catalog-12", "catalog-x"),
    ],
)
def test_every_kind_of_matcher(kind: str, text: str, yes: str, no: str) -> None:
    match = string_match(kind, text)
    assert match(yes)
    assert not match(no)


def test_ignore_case_has_no_effect_on_a_regex() -> None:
    assert string_match("exact", "Catalog", ignore_case=True)("cATALOG")
    assert not string_match("exact", "Catalog")("cATALOG")
    assert not string_match("safe_regex", "catalog", ignore_case=True)("CATALOG")


@pytest.mark.parametrize("kind", ["prefix", "suffix", "contains"])
def test_an_empty_text_is_refused_with_the_remedy(kind: str) -> None:
    with pytest.raises(RemoteError, match=r"safe_regex '\.\*'"):
        string_match(kind, "")


@pytest.mark.parametrize("kind", ["", "custom"])
def test_an_unknown_kind_is_refused(kind: str) -> None:
    with pytest.raises(RemoteError, match="expected one of"):
        string_match(kind, "x")


def test_any_of_several_and_everything_of_none() -> None:
    assert any_of([])("whoever")
    one = any_of([string_match("exact", "a"), string_match("exact", "b")])
    assert one("b")
    assert not one("c")
    with pytest.raises(RemoteError, match="at most 100"):
        any_of([string_match("exact", "a")] * 101)


@given(_PATTERNS, _NAMES)
def test_patterns_say_what_pythons_engine_says(pattern: str, text: str) -> None:
    assert compile_pattern(pattern).matches(text) == (re.fullmatch(pattern, text, re.ASCII) is not None)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("a" * (MAX_PATTERN + 1), "at most 256"),
        ("(", "ends too early|missing"),
        (")", "unbalanced"),
        ("[a", "ends too early"),
        ("[b-a]", "ends before it begins"),
        ("a{3,2}", "ends before it begins"),
        ("*", "not expected"),
        ("a**", "nothing to repeat"),
        ("^a$", "whole text is matched anyway"),
        (r"\p", "not known"),
        (r"(a)\1", "not known"),
        ("(?=a)", "only"),
        ("(" * 40 + "a" + ")" * 40, "nested too deeply"),
        ("((a{99}){99}){99}", "more than 500 states"),
        ("((){999}){999}", "more than 500 states"),
        ("(((a{0}){999}){999}){999}", "more than 500 states"),
    ],
)
def test_what_is_not_known_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(RemoteError, match=problem):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+x", "(a|a)*x", "(a*)*(a*)*x", "a{0,99}a{0,99}x", "(.*)(.*)(.*)(.*)x"])
def test_no_pattern_is_slow(pattern: str) -> None:
    """Python's own engine would not return from the first of them before the sun burns out."""
    started = time.process_time()
    assert not compile_pattern(pattern).matches("a" * 200)
    assert time.process_time() - started < 2.0
