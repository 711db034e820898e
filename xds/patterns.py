"""Regular expressions from strangers, matched in time proportional to pattern times text.

Python's own engine backtracks: a pattern of twelve characters can keep it busy for years. This one follows all
alternatives at once (Thompson's construction, as RE2 does) and knows the part of RE2's syntax that names need:
literals, ``.``, classes, ``\\d \\w \\s`` and their opposites, groups, ``|``, ``* + ?`` and ``{m,n}``. The whole text
must match.

https://swtch.com/~rsc/regexp/regexp1.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from xds.errors import RemoteError

MAX_PATTERN = 256
MAX_STATES = 500
MAX_DEPTH = 20

_Test = Callable[[str], bool]
#: Adds states before the given one and returns the first of them.
_Build = Callable[["Pattern", int], int]

_CLASSES: dict[str, _Test] = {
    "d": lambda char: "0" <= char <= "9",
    "w": lambda char: char == "_" or (char.isascii() and char.isalnum()),
    "s": lambda char: char in " \t\n\r\f",
}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_COUNTED = re.compile(r"\{(\d{1,3})(,(\d{0,3}))?\}")


@dataclass(slots=True)
class Pattern:
    """A compiled pattern. State 0 accepts; a state without a test leads on without reading."""

    tests: list[_Test | None] = field(default_factory=lambda: [None])
    leads: list[list[int]] = field(default_factory=lambda: [[]])
    start: int = 0

    def matches(self, text: str) -> bool:
        """Whether all of ``text`` matches."""
        states = self._reach([self.start])
        for char in text:
            states = self._reach(self._step(states, char))
            if not states:
                return False
        return 0 in states

    def add(self, test: _Test | None, *leads: int) -> int:
        """A new state."""
        if len(self.tests) >= MAX_STATES:
            raise RemoteError(f"safe_regex needs more than {MAX_STATES} states; expected smaller repetitions")
        self.tests.append(test)
        self.leads.append(list(leads))
        return len(self.tests) - 1

    def _step(self, states: Iterable[int], char: str) -> Iterable[int]:
        for state in states:
            test = self.tests[state]
            if test is not None and test(char):
                yield from self.leads[state]

    def _reach(self, states: Iterable[int]) -> set[int]:
        """These states and all that they lead to without reading."""
        reached: set[int] = set()
        ahead = list(states)
        while ahead:
            state = ahead.pop()
            if state not in reached:
                reached.add(state)
                if self.tests[state] is None:
                    ahead.extend(self.leads[state])
        return reached


def compile_pattern(text: str) -> Pattern:
    """RemoteError if the pattern is too long, too deep, or uses what is not known here."""
    if len(text) > MAX_PATTERN:
        raise RemoteError(f"safe_regex has {len(text)} characters; expected at most {MAX_PATTERN}")
    parser = _Parser(text)
    build = parser.alternatives(0)
    if parser.at < len(text):
        raise parser.error("unbalanced )")
    pattern = Pattern()
    pattern.start = build(pattern, 0)
    return pattern


class _Parser:
    """Recursive descent over the pattern."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, problem: str) -> RemoteError:
        return RemoteError(f"safe_regex {self.text!r}, character {self.at}: {problem}; expected RE2 syntax for names")

    def alternatives(self, depth: int) -> _Build:
        if depth > MAX_DEPTH:
            raise self.error("groups are nested too deeply")
        found = [self._sequence(depth)]
        while self._take("|"):
            found.append(self._sequence(depth))
        return found[0] if len(found) == 1 else lambda p, then: p.add(None, *[build(p, then) for build in found])

    def _sequence(self, depth: int) -> _Build:
        parts: list[_Build] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self._repeated(depth))
        return _in_sequence(parts)

    def _repeated(self, depth: int) -> _Build:
        build = self._atom(depth)
        if self._take("*"):
            build = _star(build)
        elif self._take("+"):
            build = _in_sequence([build, _star(build)])
        elif self._take("?"):
            build = _optional(build)
        elif counted := _COUNTED.match(self.text, self.at):
            self.at = counted.end()
            build = self._counted(build, counted)
        if self.at < len(self.text) and self.text[self.at] in "*+?{":
            raise self.error("nothing to repeat")
        return build

    def _counted(self, build: _Build, counted: re.Match[str]) -> _Build:
        least = int(counted[1])
        most = least if counted[2] is None else int(counted[3]) if counted[3] else None
        if most is None:
            return _in_sequence([_copy(build)] * least + [_star(build)])
        if most < least:
            raise self.error(f"{counted[0]} ends before it begins")
        return _in_sequence([_copy(build)] * least + [_at_most(build, most - least)])

    def _atom(self, depth: int) -> _Build:
        char = self._next()
        if char == "(":
            return self._group(depth)
        if char == "[":
            return _one(self._class())
        if char == "\\":
            return _one(self._escape())
        if char == ".":
            return _one(lambda found: found != "\n")
        if char in "*+?{^$":
            raise self.error(f"{char!r} is not expected here (the whole text is matched anyway)")
        return _one(char.__eq__)

    def _group(self, depth: int) -> _Build:
        if self._take("?") and not self._take(":"):
            raise self.error("only (?:...) is known of the extended groups")
        build = self.alternatives(depth + 1)
        if not self._take(")"):
            raise self.error("missing )")
        return build

    def _escape(self) -> _Test:
        char = self._next()
        known = _CLASSES.get(char.lower())
        if known is not None:
            return known if char.islower() else lambda found: not known(found)
        if char.isascii() and char.isalnum() and char not in _CONTROLS:
            raise self.error(f"\\{char} is not known")
        return _CONTROLS.get(char, char).__eq__

    def _class(self) -> _Test:
        negated, tests = self._take("^"), [self._class_item()]
        while not self._take("]"):
            tests.append(self._class_item())
        return lambda found: any(test(found) for test in tests) != negated

    def _class_item(self) -> _Test:
        first = self._next()
        if first == "\\":
            return self._escape()
        if self.text[self.at : self.at + 1] != "-" or self.text[self.at + 1 : self.at + 2] in ("]", ""):
            return first.__eq__
        self.at += 1
        last = self._next()
        if last < first:
            raise self.error(f"the range {first}-{last} ends before it begins")
        return lambda found: first <= found <= last

    def _next(self) -> str:
        if self.at >= len(self.text):
            raise self.error("the pattern ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _take(self, char: str) -> bool:
        taken = self.text[self.at : self.at + 1] == char
        self.at += taken
        return taken


def _one(test: _Test) -> _Build:
    return lambda pattern, then: pattern.add(test, then)


def _in_sequence(parts: list[_Build]) -> _Build:
    def build(pattern: Pattern, then: int) -> int:
        for part in reversed(parts):
            then = part(pattern, then)
        return then

    return build


def _copy(inner: _Build) -> _Build:
    """With a state of its own, so that copies of nothing are counted too."""
    return lambda pattern, then: pattern.add(None, inner(pattern, then))


def _optional(inner: _Build) -> _Build:
    return _at_most(inner, 1)


def _at_most(inner: _Build, times: int) -> _Build:
    def build(pattern: Pattern, then: int) -> int:
        end = then
        for _ in range(times):
            then = pattern.add(None, inner(pattern, then), end)
        return then

    return build


def _star(inner: _Build) -> _Build:
    def build(pattern: Pattern, then: int) -> int:
        loop = pattern.add(None, then)
        pattern.leads[loop].append(inner(pattern, loop))
        return loop

    return build
