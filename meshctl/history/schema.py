"""Tables of the history database. ``PRAGMA user_version`` holds the number of migrations that were applied."""

from __future__ import annotations

#: Each entry leads from version n to n + 1. Released entries never change; append.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE samples (
        series INTEGER NOT NULL REFERENCES series (id), time REAL NOT NULL, value REAL NOT NULL,
        PRIMARY KEY (series, time)
    ) WITHOUT ROWID;
    CREATE INDEX samples_time ON samples (time);
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, tick INTEGER, kind TEXT, subject TEXT, service TEXT,
        outcome TEXT, body TEXT NOT NULL
    );
    CREATE INDEX decisions_service ON decisions (service, id);
    CREATE INDEX decisions_kind ON decisions (kind, id);
    CREATE INDEX decisions_time ON decisions (time);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, kind TEXT, subject TEXT, body TEXT NOT NULL
    );
    CREATE INDEX events_time ON events (time);
    CREATE TABLE experiments (
        id INTEGER PRIMARY KEY AUTOINCREMENT, started REAL, status TEXT, body TEXT NOT NULL
    );
    CREATE TABLE faults (id TEXT PRIMARY KEY, expires REAL NOT NULL, body TEXT NOT NULL);
    """,
)

VERSION = len(MIGRATIONS)
