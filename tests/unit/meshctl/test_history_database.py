"""The database: what goes in comes out, also after a kill; damage is named and left alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshctl.errors import HistoryError
from meshctl.history.database import Database
from meshctl.history.schema import VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path) as opened:
        yield opened


def decision(time: float = 1.0, subject: str = "catalog", **more: Any) -> dict[str, Any]:
    return {"time": time, "tick": 1, "kind": "replicas", "subject": subject, "outcome": "applied", **more}


def test_samples_come_back_in_order(database: Database) -> None:
    database.append_samples([("a", 2.0, 20.0), ("a", 1.0, 10.0), ("b", 1.0, 5.0), ("a", 3.0, float("nan"))])
    database.append_samples([("a", 2.0, 21.0)])
    times, values = database.load_samples("a")
    assert (times.tolist(), values.tolist()) == ([1.0, 2.0], [10.0, 21.0])
    assert database.load_samples("a", since=1.5)[0].tolist() == [2.0]
    assert database.load_samples("none")[0].size == 0
    assert database.series_names() == ["a", "b"]


def test_decisions_keep_everything_and_give_ids(database: Database) -> None:
    record = decision(inputs={"demand": 1.5, "ready": 2, "model": None, "skilled": True}, guardrails=("step",))
    number = database.record_decision(record)
    found = database.decision(number)
    assert found == {**record, "id": number, "guardrails": ["step"]}
    assert database.decision(99) is None


def test_not_a_number_becomes_null(database: Database) -> None:
    number = database.record_decision(decision(previous=float("nan"), inputs={"x": [float("inf"), 1.0]}))
    found = database.decision(number)
    assert found is not None
    assert (found["previous"], found["inputs"]) == (None, {"x": [None, 1.0]})


def test_decisions_are_filtered_newest_first(database: Database) -> None:
    ids = database.record_decisions(
        [
            decision(subject="catalog"),
            decision(subject="frontend>catalog", kind="limit"),
            decision(subject="catalog>cart", kind="limit"),
            decision(subject="ingress/shop", kind="rate_limit", inputs={"service": "catalog"}),
            decision(subject="frontend"),
        ]
    )
    assert [one["id"] for one in database.decisions()] == ids[::-1]
    assert [one["id"] for one in database.decisions(limit=2)] == ids[:2:-1]
    assert [one["id"] for one in database.decisions(service="catalog")] == [ids[3], ids[1], ids[0]]
    assert [one["id"] for one in database.decisions(kind="limit")] == [ids[2], ids[1]]
    assert [one["id"] for one in database.decisions(after=ids[3])] == [ids[4]]
    assert database.decisions(service="% OR 1=1") == []


def test_the_decisions_of_a_tick_are_kept_whole_or_not_at_all(database: Database) -> None:
    with pytest.raises(HistoryError):
        database.record_decisions([decision(), {"kind": "no time"}])
    assert database.decisions() == []
    assert database.record_decision(decision()) > 0


def test_events_are_read_on(database: Database) -> None:
    ids = [database.record_event({"time": float(n), "kind": "push", "message": str(n)}) for n in range(5)]
    assert [one["message"] for one in database.events(after=ids[1], limit=2)] == ["2", "3"]
    assert database.events(after=ids[-1]) == []


def test_experiments_are_updated(database: Database) -> None:
    number = database.record_experiment({"title": "abort", "status": "running", "started": 1.0, "result": {}})
    changed = database.update_experiment(number, {"status": "passed", "result": {"score": 87.5}})
    assert changed == database.experiment(number)
    assert changed is not None
    assert (changed["title"], changed["status"], changed["result"]) == ("abort", "passed", {"score": 87.5})
    assert database.update_experiment(99, {"status": "passed"}) is None
    assert [one["id"] for one in database.experiments()] == [number]


def test_faults_keep_their_own_id_and_deadline(database: Database) -> None:
    database.save_fault({"id": "f1", "expires": 10.0, "service": "catalog"})
    database.save_fault({"id": "f2", "expires": 5.0, "service": "cart"})
    database.save_fault({"id": "f1", "expires": 12.0, "service": "catalog"})
    assert [one["id"] for one in database.faults()] == ["f2", "f1"]
    assert [one["expires"] for one in database.faults(expire_after=6.0)] == [12.0]
    assert database.fault("f2") == {"id": "f2", "expires": 5.0, "service": "cart"}
    assert database.fault("f3") is None


def test_prune_deletes_what_is_old_but_experiments(database: Database) -> None:
    database.append_samples([("a", 1.0, 1.0), ("a", 9.0, 1.0)])
    database.record_decisions([decision(time=1.0), decision(time=9.0)])
    database.record_event({"time": 1.0, "kind": "push"})
    database.record_experiment({"started": 1.0})
    database.save_fault({"id": "f", "expires": 1.0})
    assert database.prune(before=5.0) == 4
    assert database.load_samples("a")[0].tolist() == [9.0]
    assert len(database.decisions()) == 1
    assert len(database.experiments()) == 1


def test_ids_are_never_used_twice(database: Database) -> None:
    first = database.record_event({"time": 1.0})
    database.prune(before=2.0)
    assert database.record_event({"time": 3.0}) > first


def test_everything_survives_reopening(path: Path) -> None:
    with Database.open(path) as database:
        database.append_samples([("a", 1.0, 1.0)])
        number = database.record_decision(decision())
    with Database.open(path) as database:
        assert database.series_names() == ["a"]
        assert database.decision(number) is not None
        database.append_samples([("a", 2.0, 2.0)])
        assert database.load_samples("a")[1].tolist() == [1.0, 2.0]


def test_threads_share_one_database(database: Database) -> None:
    def work(number: int) -> None:
        for index in range(50):
            database.append_samples([(f"s{number}", float(index), float(index))])
            database.record_decision(decision(subject=f"s{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(database.decisions(limit=1000)) == 200
    assert all(database.load_samples(f"s{number}")[0].size == 50 for number in range(4))


WRITER = """
import sys
from meshctl.history.database import Database
database = Database.open(sys.argv[1])
for tick in range(1_000_000):
    database.record_decisions([{"time": float(tick), "tick": tick, "kind": str(part)} for part in range(3)])
    print(tick, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_loses_nothing_that_was_committed(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        told = -1
        for line in process.stdout:
            told = int(line)
            if told >= 40:
                break
        process.kill()
        rest = process.stdout.read().split()
    told = max([told, *map(int, rest)])
    with Database.open(path) as database:
        kept = database.decisions(limit=10_000_000)
        assert kept[0]["tick"] in (told, told + 1)
        assert len(kept) == 3 * (kept[0]["tick"] + 1), "a tick was kept in part"
        assert database.record_decision(decision()) == len(kept) + 1


def damaged(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    return path.read_bytes()


def test_a_file_that_is_no_database_is_named_and_left_alone(path: Path) -> None:
    before = damaged(path)
    with pytest.raises(HistoryError, match="is damaged") as caught:
        Database.open(path)
    assert str(path) in caught.value.message
    assert "move the file away" in caught.value.message
    assert path.read_bytes() == before


def test_damaged_pages_are_found(path: Path) -> None:
    with Database.open(path) as database:
        database.append_samples([(f"series {n}", float(n), 1.0) for n in range(3000)])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(path.read_bytes())
    content[8192:16384] = b"\xa5" * 8192
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="is damaged"):
        Database.open(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    Database.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(HistoryError, match="made by a newer meshctl"):
        Database.open(path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="cannot be used"):
        Database.open(tmp_path / "file" / "history.db")


def test_use_after_close_is_an_error_of_ours(path: Path) -> None:
    database = Database.open(path)
    database.close()
    database.close()
    with pytest.raises(HistoryError, match="cannot be used"):
        database.decisions()
