"""Break the rules of the protocol on purpose, one by one, and see which tests notice.

``python -m tests.support.mutations [part of a name ...]``. A mutation is a replacement in one file of a copy of
``xds/``, beside a copy of the tests, in a temporary folder: the work tree is never touched. Each is tried against the
rules (tests/unit/xds/test_protocol_rules.py) and the random histories (tests/properties/test_xds_machines.py); one
that neither catches makes the exit code 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = "tests/unit/xds/test_protocol_rules.py"
HISTORIES = "tests/properties/test_xds_machines.py"
COPIED = ("tests/__init__.py", "tests/conftest.py", "tests/support", "tests/unit/xds/link.py", RULES, HISTORIES)


@dataclass(frozen=True)
class Mutation:
    """``old`` occurs exactly once in ``file`` (below xds/) and becomes ``new``."""

    name: str
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Verdict:
    """Names of the rules' tests that failed, and of the histories."""

    mutation: Mutation
    rules: tuple[str, ...]
    histories: tuple[str, ...]

    @property
    def caught(self) -> bool:
        return bool(self.rules or self.histories)


DELTA, SOTW, STREAM = "protocol/delta.py", "protocol/sotw.py", "protocol/stream.py"
SUBSCRIPTION, ORDERING, HOLDING = "protocol/subscription.py", "protocol/ordering.py", "protocol/holding.py"

MUTATIONS = (
    Mutation(
        "a NACK is told by its version",
        SOTW,
        "            self._answered(sub, request.nonce, request.error, now)\n",
        "            same = sub.flight is not None and request.version == sub.flight.set_version\n"
        "            self._answered(sub, request.nonce, None if same else request.error, now)\n",
    ),
    Mutation(
        "a NACK needs a message",
        "codec.py",
        '    if not message.HasField("error_detail"):',
        "    if not message.error_detail.message:",
    ),
    Mutation(
        "what was rejected is sent again at once",
        SUBSCRIPTION,
        "self.rejected_set = flight.set_version",
        'self.rejected_set = ""',
    ),
    Mutation(
        "a rejection stands for ever",
        SUBSCRIPTION,
        "if self.rejected and self.rejected_set != current.version:",
        "if False:",
    ),
    Mutation(
        "a NACK cannot change the names",
        SOTW,
        "        self._rename(sub, request.names)\n",
        "        if request.error is None:\n            self._rename(sub, request.names)\n",
    ),
    Mutation("stale nonces count", SOTW, "        if sub.nonce and request.nonce != sub.nonce:", "        if False:"),
    Mutation(
        "a stale nonce discards changes",
        DELTA,
        "        first = sub.type_url not in self._started\n",
        "        if request.nonce and (sub.flight is None or request.nonce != sub.flight.nonce):\n"
        "            return\n"
        "        first = sub.type_url not in self._started\n",
    ),
    Mutation(
        "new names at the same version go unanswered",
        SOTW,
        "        if names == self._last_names.get(sub.type_url):\n            return\n",
        "        if self._last_names.get(sub.type_url) and names:\n            return\n",
    ),
    Mutation(
        "the first nonce must be ours",
        SOTW,
        "        if sub.nonce and request.nonce != sub.nonce:",
        "        if request.nonce != sub.nonce:",
    ),
    Mutation(
        "an equal version is believed of names, too",
        SOTW,
        "if claim != current.version or not sub.wildcard or sub.names or sub.nonce:",
        "if claim != current.version or sub.nonce:",
    ),
    Mutation(
        "a part has the version of the whole",
        SOTW,
        "version = current.version if whole else combined_version(versions_of(content.values()).items())",
        "version = current.version",
    ),
    Mutation("an empty list always means everything", SOTW, "if not names and not sub.named:", "if not names:"),
    Mutation("a star is a name like others", SUBSCRIPTION, "        if WILDCARD in added:", "        if False:"),
    Mutation(
        "dropping a name under a wildcard is not answered",
        DELTA,
        "        if sub.wildcard:\n            sub.force(names)",
        "        if False:\n            sub.force(names)",
    ),
    Mutation(
        "asking again is not answered",
        SUBSCRIPTION,
        "        self.forced |= added\n",
        "        self.forced |= {name for name in added if name not in self.held}\n",
    ),
    Mutation("a missing name is not told", DELTA, "missing = sub.missing(current)", "missing: list[str] = []"),
    Mutation("initial versions are not read", DELTA, "        sub.adopt(request.initial_versions)\n", ""),
    Mutation(
        "not loaded is empty",
        STREAM,
        "if response is None and current is not None and",
        "current = current or ResourceSet(sub.type_url, {})\n            if response is None and",
    ),
    Mutation(
        "a wildcard of nothing is not answered",
        SUBSCRIPTION,
        "return self.wildcard and not self.nonce and not self.acked_version and not self.held",
        "return False",
    ),
    Mutation(
        "clusters are not followed by endpoints",
        STREAM,
        "        if self.node is None or not self.node.warms_clusters:\n            return\n",
        "        return\n",
    ),
    Mutation(
        "endpoints are not owed after a reconnect",
        DELTA,
        "            sub.force(sub.names if self._is_warming() else sub.names & self._changed_assignments)",
        "            pass",
    ),
    Mutation(
        "routes come before clusters",
        "types.py",
        "ORDER = (CLUSTER, ENDPOINT, SECRET, LISTENER, ",
        "ORDER = (LISTENER, CLUSTER, ENDPOINT, SECRET, ",
    ),
    Mutation(
        "routes do not wait for clusters",
        ORDERING,
        "    if clusters is None or known is None or clusters.confirms_all(known):",
        "    if True:",
    ),
    Mutation(
        "removals do not wait",
        STREAM,
        "all(self._settled(url) for url in ordering.REMOVE_AFTER.get(sub.type_url, ()))",
        "True",
    ),
    Mutation("absence deletes at once", SOTW, "now, kept=self._kept(sub, current, ()))", "now, kept={})"),
    Mutation(
        "what waits is left out of a full state",
        SOTW,
        "instead.update((name, accepted.get(name)) for name in waiting)",
        "instead.update((name, None) for name in waiting)",
    ),
    Mutation(
        "two responses of a type are on their way",
        STREAM,
        "sub.flight is None and not sub.at_rest(current)",
        "not sub.at_rest(current)",
    ),
    Mutation(
        "the usual change is sent whatever was rejected or asked for",
        SUBSCRIPTION,
        "or self.unconfirmed or self.forced or self.rejected or self._odd():",
        "or self.unconfirmed:",
    ),
    Mutation(
        "what is new in a response on its way counts as accepted",
        SUBSCRIPTION,
        "        flying = self.flight is not None and name in self._new\n",
        "        flying = False\n",
    ),
    Mutation(
        "what was new in a rejected response counts as accepted",
        SUBSCRIPTION,
        "if name in self._new or name not in self.held:",
        "if name not in self.held:",
    ),
    Mutation(
        "a set counts as accepted while it is on its way",
        SUBSCRIPTION,
        "not self.unconfirmed and not flying\n\n    def accepts",
        "not self.unconfirmed\n\n    def accepts",
    ),
    Mutation(
        "the usual change forgets what is gone",
        SUBSCRIPTION,
        "step if wanted and step.changed and not step.removed else None",
        "step if wanted and step.changed else None",
    ),
    Mutation(
        "the usual change brings what nobody asked for",
        SUBSCRIPTION,
        "wanted = self.wildcard or (self.type_url not in FULL_STATE and step.changed <= self.names)",
        "wanted = True",
    ),
    Mutation(
        "versions are counted",
        "snapshot.py",
        "hashlib.sha256(body).hexdigest()[:VERSION_LENGTH]",
        "hashlib.sha256(body + __import__('os').urandom(8)).hexdigest()[:VERSION_LENGTH]",
    ),
    Mutation("maps are written as they come", "_encoder.py", "for name in sorted(entries):", "for name in entries:"),
    Mutation(
        "what is not asked for any more is sent",
        SUBSCRIPTION,
        "        wanted = [current.resources[name] for name in sorted(names) if self.wants(name)]",
        "        wanted = [current.resources[name] for name in sorted(names)]",
    ),
    Mutation(
        "a rejected response counts as not applied",
        SUBSCRIPTION,
        "            self.held[name] = UNKNOWN\n        for name in filter(self.wants, flight.removed)",
        "            self.held.pop(name, None)\n        for name in filter(self.wants, flight.removed)",
    ),
    Mutation(
        "a node may change", STREAM, "elif node is not None and node.id and node.id != self.node.id:", "elif False:"
    ),
    Mutation(
        "everybody gets leases", "protocol/events.py", "        if self.features & _TTL_FEATURES:", "        if True:"
    ),
    Mutation(
        "leases of state of the world are not wrapped",
        "codec.py",
        "_resource(i).SerializeToString()) if i.ttl else",
        "_resource(i).SerializeToString()) if False else",
    ),
    Mutation("heartbeats have no body in either variant", HOLDING, "full=late or self.sotw", "full=late"),
    Mutation(
        "nothing follows a rejected lease",
        HOLDING,
        "            return self._fallback(now, self.good)",
        "            return None",
    ),
    Mutation(
        "what waited when a wildcard was answered is forgotten",
        SUBSCRIPTION,
        "        if self.wildcard and (beyond := self.held.beyond(current)):",
        "        if False and (beyond := self.held.beyond(current)):",
    ),
    Mutation(
        "endpoints that are owed are taken away at once",
        SUBSCRIPTION,
        "return sorted(name for name in absent if name not in self.held)",
        "return sorted(absent)",
    ),
    Mutation(
        "returning clients are thought to have nothing",
        SUBSCRIPTION,
        "return name in self.held or name in self.brought or WILDCARD in self.brought",
        "return name in self.held",
    ),
)


def try_out(mutation: Mutation) -> Verdict:
    """Apply a mutation to a copy and run the tests there. ValueError if it does not fit the source (any more)."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        home = Path(folder)
        _copy(home)
        _mutate(home / "xds" / mutation.file, mutation)
        return Verdict(mutation, tuple(_failures(home, RULES, 5)), tuple(_failures(home, HISTORIES, 60)))


def _copy(home: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "xds", home / "xds", ignore=ignored)
    (home / "docs" / "explanation").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "explanation" / "protocol-rules.md", home / "docs" / "explanation")
    shutil.copy(ROOT / "pyproject.toml", home)
    for name in COPIED:
        source, target = ROOT / name, home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        elif source.exists():
            shutil.copy(source, target)


def _mutate(path: Path, mutation: Mutation) -> None:
    source = path.read_text()
    if source.count(mutation.old) != 1:
        count = source.count(mutation.old)
        raise ValueError(f"{mutation.name!r}: {mutation.file} holds {mutation.old!r} {count} times; expected once")
    path.write_text(source.replace(mutation.old, mutation.new))


def _failures(home: Path, tests: str, seconds: float) -> Iterator[str]:
    """Names of the tests that fail in the copy, or take longer than ``seconds``. RuntimeError if they cannot be run."""
    environment = os.environ | {"HYPOTHESIS_PROFILE": "unshrunk", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ("-q", "--tb=no", f"--timeout={seconds}", "-p", "no:randomly", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *options, tests]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"^(?:FAILED|ERROR) \S+?::(\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) and not found:
        raise RuntimeError(f"{tests} did not run in {home}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    yield from found


def main(names: Iterable[str]) -> int:
    """Try the mutations whose names contain one of ``names`` (all, if there are none), and print who caught them."""
    wanted = list(names)
    chosen = [one for one in MUTATIONS if not wanted or any(name in one.name for name in wanted)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        verdicts = []
        for verdict in pool.map(try_out, chosen):
            verdicts.append(verdict)
            print(_line(verdict), flush=True)
    missed = [one.mutation.name for one in verdicts if not one.caught]
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} mutations were caught")
    return 1 if missed else 0


def _line(verdict: Verdict) -> str:
    rules = sorted({name.split("_")[2] for name in verdict.rules if name.startswith("test_rule_")})
    histories = sorted({name.removeprefix("Test").partition(":")[0] for name in verdict.histories})
    return f"{verdict.mutation.name:58} rules {','.join(rules) or '-':24} histories {','.join(histories) or '-'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
