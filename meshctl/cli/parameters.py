"""Types of parameters that click does not know."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click


class Moment(click.ParamType[float]):
    """A moment, ISO 8601 (UTC where it has no zone) or seconds since the epoch."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(
                f"expected a time such as 2026-01-31T10:45Z or seconds since the epoch, got {value!r}", param, ctx
            )
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Duration(click.ParamType[float]):
    """Seconds above 0, written as 30s, 5m, 1h or a bare number."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from meshctl.config import parse_duration

        text = str(value)
        try:
            seconds = parse_duration(float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return seconds if seconds > 0 else self.fail(f"expected more than 0 seconds, got {text!r}", param, ctx)
