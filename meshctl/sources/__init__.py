"""Signals in: telemetry, traces and name lookups. Nothing here decides anything."""
