"""The history on disk: samples, decisions, events, experiments and live faults in one SQLite file.

Write-ahead logging with ``synchronous=NORMAL``: a killed process loses nothing that was committed, and readers never
wait. Records are plain mappings kept as JSON; what is filtered by has a column. Calls are synchronous and short; one
lock makes the object safe to share between threads.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meshctl.errors import HistoryError
from meshctl.history.schema import MIGRATIONS, VERSION

Record = dict[str, Any]
Sample = tuple[str, float, float]

#: A file up to this size (bytes) is checked page by page when opened; it takes a tenth of a second.
_CHECKED = 64 * 1024 * 1024


class Database:
    """Use :meth:`open`. Every method raises HistoryError, naming the file, if SQLite refuses."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._series: dict[str, int] = {}

    @classmethod
    def open(cls, path: str | Path) -> Database:
        """Open or create the database at ``path``, folders included, and bring its schema up to date.

        Raises HistoryError for a file that is corrupt, made by a newer meshctl, or not accessible. The file is left
        alone.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, check_same_thread=False, timeout=10.0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise _refused(path, error) from None
        try:
            _prepare(connection, path)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise _refused(path, error) from None
            raise
        return cls(path, connection)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Samples

    def append_samples(self, samples: Iterable[Sample]) -> None:
        """Store (name, time, value) in one transaction; a later value of the same time wins, NaN is dropped."""
        kept = [sample for sample in samples if math.isfinite(sample[2])]
        with self._transaction() as connection:
            ids = self._series_ids(connection, {name for name, _, _ in kept})
            rows = [(ids[name], time, value) for name, time, value in kept]
            connection.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", rows)
        self._series.update(ids)

    def load_samples(
        self, name: str, since: float = -math.inf
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Times and values of a series from ``since`` on, oldest first; empty for an unknown name."""
        query = """SELECT time, value FROM samples WHERE series = (SELECT id FROM series WHERE name = ?)
                   AND time >= ? ORDER BY time"""
        rows = np.array(self._rows(query, (name, since)), dtype=np.float64).reshape(-1, 2)
        return rows[:, 0].copy(), rows[:, 1].copy()

    def series_names(self) -> list[str]:
        """The names of all series, sorted."""
        return [name for (name,) in self._rows("SELECT name FROM series ORDER BY name")]

    def _series_ids(self, connection: sqlite3.Connection, names: set[str]) -> dict[str, int]:
        ids = {name: self._series[name] for name in names if name in self._series}
        for name in sorted(names - ids.keys()):
            connection.execute("INSERT OR IGNORE INTO series (name) VALUES (?)", (name,))
            (ids[name],) = connection.execute("SELECT id FROM series WHERE name = ?", (name,)).fetchone()
        return ids

    # Decisions

    def record_decision(self, decision: Mapping[str, Any]) -> int:
        """Store one decision (``time`` is required) and give its id."""
        return self.record_decisions([decision])[0]

    def record_decisions(self, decisions: Sequence[Mapping[str, Any]]) -> list[int]:
        """Store the decisions of a tick in one transaction and give their ids: either all are kept or none."""
        query = "INSERT INTO decisions (time, tick, kind, subject, service, outcome, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
        columns = ("time", "tick", "kind", "subject", "service", "outcome")
        rows = [(*_columns({"service": _service(one), **one}, columns), _encode(one)) for one in decisions]
        return self._insert(query, rows)

    def decisions(
        self, limit: int = 50, service: str | None = None, kind: str | None = None, after: int = 0
    ) -> list[Record]:
        """The newest decisions, newest first; of one kind, later than id ``after``, or about ``service``.

        A decision about an edge or a route is about the service that it leads to.
        """
        conditions: list[str] = ["id > ?"]
        parameters: list[Any] = [after]
        for column, wanted in (("kind", kind), ("service", service)):
            if wanted is not None:
                conditions.append(f"{column} = ?")
                parameters.append(wanted)
        query = f"SELECT id, body FROM decisions WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"  # noqa: S608
        return self._records(query, (*parameters, limit))

    def decision(self, number: int) -> Record | None:
        """One decision, or None."""
        return self._one("SELECT id, body FROM decisions WHERE id = ?", number)

    # Events

    def record_event(self, event: Mapping[str, Any]) -> int:
        """Store one event (``time`` is required) and give its id."""
        query = "INSERT INTO events (time, kind, subject, body) VALUES (?, ?, ?, ?)"
        return self._insert(query, [(*_columns(event, ("time", "kind", "subject")), _encode(event))])[0]

    def events(self, after: int = 0, limit: int = 500) -> list[Record]:
        """The first ``limit`` events with an id above ``after``, oldest first."""
        return self._records("SELECT id, body FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, limit))

    # Experiments

    def record_experiment(self, experiment: Mapping[str, Any]) -> int:
        """Store a new experiment and give its id."""
        query = "INSERT INTO experiments (started, status, body) VALUES (?, ?, ?)"
        started, status = experiment.get("started"), experiment.get("status")
        return self._insert(query, [(started, status, _encode(experiment))])[0]

    def update_experiment(self, number: int, changes: Mapping[str, Any]) -> Record | None:
        """Merge ``changes`` into an experiment and give it; None if there is no such experiment."""
        with self._transaction() as connection:
            row = connection.execute("SELECT id, body FROM experiments WHERE id = ?", (number,)).fetchone()
            if row is None:
                return None
            record = {**_decode(row), **changes, "id": number}
            values = (record.get("started"), record.get("status"), _encode(record), number)
            connection.execute("UPDATE experiments SET started = ?, status = ?, body = ? WHERE id = ?", values)
        return record

    def experiments(self, limit: int = 50) -> list[Record]:
        """The newest experiments, newest first."""
        return self._records("SELECT id, body FROM experiments ORDER BY id DESC LIMIT ?", (limit,))

    def experiment(self, number: int) -> Record | None:
        """One experiment, or None."""
        return self._one("SELECT id, body FROM experiments WHERE id = ?", number)

    # Faults: their absolute deadlines must outlive the process (a restart starts with none in force)

    def save_fault(self, fault: Mapping[str, Any]) -> None:
        """Keep a fault by its ``id`` with its absolute deadline ``expires``, replacing an earlier record."""
        with self._transaction() as connection:
            values = (str(fault["id"]), fault["expires"], _encode(fault, drop_id=False))
            connection.execute("INSERT OR REPLACE INTO faults VALUES (?, ?, ?)", values)

    def faults(self, expire_after: float = -math.inf) -> list[Record]:
        """Faults whose deadline is later than ``expire_after``, by deadline."""
        query = "SELECT body FROM faults WHERE expires > ? ORDER BY expires, id"
        return [json.loads(body) for (body,) in self._rows(query, (expire_after,))]

    def fault(self, number: str) -> Record | None:
        """One fault, or None."""
        rows = self._rows("SELECT body FROM faults WHERE id = ?", (str(number),))
        return json.loads(rows[0][0]) if rows else None

    # Housekeeping

    def prune(self, before: float) -> int:
        """Delete samples, decisions, events and faults older than ``before``; experiments stay. Gives the rows
        deleted.
        """
        with self._transaction() as connection:
            return sum(
                connection.execute(query, (before,)).rowcount
                for query in (
                    "DELETE FROM samples WHERE time < ?",
                    "DELETE FROM decisions WHERE time < ?",
                    "DELETE FROM events WHERE time < ?",
                    "DELETE FROM faults WHERE expires < ?",
                )
            )

    # The only three ways to the connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, one writer at a time."""
        with self._lock, _translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _insert(self, query: str, rows: Sequence[tuple[Any, ...]]) -> list[int]:
        with self._transaction() as connection:
            return [int(connection.execute(query, row).lastrowid or 0) for row in rows]

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _translated(self.path):
            return self._connection.execute(query, values).fetchall()

    def _records(self, query: str, values: tuple[Any, ...]) -> list[Record]:
        return [_decode(row) for row in self._rows(query, values)]

    def _one(self, query: str, number: int) -> Record | None:
        return next(iter(self._records(query, (number,))), None)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set the modes, check the file, and migrate it in one transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise HistoryError(
            f"{path}: made by a newer meshctl (schema {version}, this one knows {VERSION}); "
            f"update meshctl, or move the file away to start a new history"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if path.stat().st_size <= _CHECKED:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    for number in range(version, VERSION):
        script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT;"
        connection.executescript(script)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> HistoryError:
    if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError | OSError):
        return HistoryError(f"{path}: cannot be used: {error}; check that the folder exists, is writable and has space")
    return HistoryError(
        f"{path}: the history is damaged: {error}; move the file away to start a new one (mv {path} {path}.bad)"
    )


def _service(decision: Mapping[str, Any]) -> str | None:
    """The service that a decision is about: its own field, the input ``service``, or the end of its subject."""
    inputs = decision.get("inputs")
    if isinstance(inputs, Mapping) and isinstance(inputs.get("service"), str):
        return str(inputs["service"])
    subject = decision.get("subject")
    return str(subject).rpartition(">")[2] if subject is not None else None


def _columns(record: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in names)


def _encode(record: Mapping[str, Any], *, drop_id: bool = True) -> str:
    """JSON of the record; NaN and infinity become null, because JSON has neither."""
    body = {key: _finite(value) for key, value in record.items() if key != "id" or not drop_id}
    return json.dumps(body, separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item) for item in value]
    return value


def _decode(row: tuple[Any, ...]) -> Record:
    number, body = row
    return {"id": number, **json.loads(body)}
