"""Where the series of a backtest come from: files, a Prometheus, or the history of a control plane."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshctl.cli import output as out
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from forecasting.series import FloatArray, IntArray, Series
    from meshctl.history.database import Database

    Samples = tuple[FloatArray, FloatArray]

_DAY = 86_400.0

#: Longest series, in steps, that a file may make: a wrong year would else ask for all the memory.
_MOST = 5_000_000
#: How far, in steps, a time may lie off the regular grid.
_JITTER = 0.1


def series_of(source: Mapping[str, Any], season: int | None) -> list[Series]:
    """The series of the one source that was given. Raises UsageError for none, for two, and for options of another."""
    readers: dict[str, tuple[Callable[..., list[Series]], tuple[str, ...]]] = {
        "files": (_from_files, ("step",)),
        "prometheus": (_from_prometheus, ("query", "start", "end", "step", "prometheus_token_file")),
        "store": (_from_store, ("services", "step")),
    }
    given = [name for name, value in source.items() if value not in (None, ())]
    chosen = [name for name in readers if name in given]
    if len(chosen) != 1:
        raise UsageError("give one source of series: --csv FILE, --prometheus URL --query Q, or --store DIR")
    read, allowed = readers[chosen[0]]
    if strange := [name for name in given if name != chosen[0] and name not in allowed]:
        raise UsageError(f"{_flag(strange[0])} does not go with {_flag(chosen[0])}; leave one of the two out")
    return read(source[chosen[0]], season, **{name: source[name] for name in allowed})


def _flag(name: str) -> str:
    return {"files": "--csv", "services": "--service"}.get(name, f"--{name.replace('_', '-')}")


def _make(
    name: str,
    start: float,
    step: float,
    values: FloatArray,
    season: int | None,
    *,
    beside: Mapping[str, FloatArray] | None = None,
) -> Series:
    """``beside``: what was measured on the same grid, by name."""
    import numpy as np

    from forecasting.calendar import Covariates
    from forecasting.series import Series

    covariates = Covariates(tuple(beside), np.stack(list(beside.values()), axis=1)) if beside else None
    return Series(name, start, step, values, season or max(1, round(_DAY / step)), covariates)


def _from_files(files: Sequence[Path], season: int | None, step: float | None) -> list[Series]:
    names = Counter(_stem(file) for file in files)
    return [_from_file(file, _stem(file) if names[_stem(file)] == 1 else str(file), season, step) for file in files]


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".csv")


def _from_file(file: Path, name: str, season: int | None, step: float | None) -> Series:
    from meshctl.sources import trace

    try:
        read = trace.read(file, beside=True)
    except UsageError as error:
        if re.match(r":[0-9]+: ", str(error).removeprefix(str(file))):
            raise UsageError(f"{error}; correct the line, or leave it out: a missing line is a gap") from None
        raise
    step, index = _regular(file, read.times, step)
    beside = {column: _on_grid(index, values) for column, values in read.beside.items()}
    return _make(name, float(read.times[0]), step, _on_grid(index, read.values), season, beside=beside)


def _regular(file: Path, times: FloatArray, step: float | None) -> tuple[float, IntArray]:
    """``step`` (the usual distance of two rows), and where on the regular grid each row lies."""
    import numpy as np

    step = step or float(np.median(np.diff(times)))
    position = (times - times[0]) / step
    index = np.rint(position).astype(np.int64)
    wrong = (np.abs(position - index) > _JITTER) | (np.diff(index, prepend=-1) == 0)
    if wrong.any():
        moment = datetime.fromtimestamp(times[int(np.argmax(wrong))], UTC).isoformat()
        raise UsageError(
            f"{file}: {moment} is not on the grid of {step:g} s; resample the file, or give another --step"
        )
    if index[-1] >= _MOST:
        raise UsageError(f"{file}: {index[-1] + 1} steps of {step:g} s, most of them gaps; correct its times or --step")
    return step, index


def _on_grid(index: IntArray, values: FloatArray) -> FloatArray:
    """NaN in gaps."""
    import numpy as np

    grid = np.full(int(index[-1]) + 1, np.nan)
    grid[index] = values
    return grid


def _from_prometheus(url: str, season: int | None, **asked: Any) -> list[Series]:
    from meshctl.sources.prometheus_range import RangeQuery, Server, query_range

    for name in ("query", "start", "end", "step"):
        if asked[name] is None:
            raise UsageError(f"{_flag(name)} is missing; --prometheus needs --query, --start, --end and --step")
    token = asked["prometheus_token_file"]
    server = Server(url, None if token is None else _read(token).strip())
    found = query_range(server, RangeQuery(asked["query"], asked["start"], asked["end"], asked["step"]))
    # A query looks back: what it says at a moment is the rate of the step that ends there.
    return [_make(one.name, one.start - one.step, one.step, one.values, season) for one in found]


def _from_store(folder: Path, season: int | None, services: Sequence[str], step: float | None) -> list[Series]:
    from meshctl.control.past import DEMAND
    from meshctl.history.database import Database

    file = folder / "history.db"
    if not file.is_file():
        raise UsageError(f"{file}: no such file; name the state directory of a control plane (--store)")
    with Database.open(file) as database:
        known = [name.removeprefix(DEMAND) for name in database.series_names() if name.startswith(DEMAND)]
        if unknown := [name for name in services if name not in known]:
            raise UsageError(f"{file}: no demand of {unknown[0]!r}; it has {', '.join(known) or 'none at all'}")
        wanted = list(dict.fromkeys(services)) or known
        rows = {name: database.load_samples(DEMAND + name) for name in wanted}
        beside = {name: _measured(database, name) for name in wanted}
    return [_stored(name, rows[name], season, step, beside[name]) for name in wanted if len(rows[name][0]) > 1]


def _measured(database: Database, service: str) -> dict[str, Samples]:
    """What was measured beside a service's demand, by name: nothing where no business metric was, as in the control
    plane, since what it uses follows its demand.
    """
    from meshctl.control.past import BUSINESS, MEASURES, RESOURCES

    ending = f"/{service}"
    names = [name for name in database.series_names() if name.startswith((BUSINESS, *RESOURCES))]
    mine = sorted((name for name in names if name.endswith(ending)), key=lambda name: not name.startswith(BUSINESS))
    chosen = mine[:MEASURES] if mine and mine[0].startswith(BUSINESS) else []
    return {name.removesuffix(ending): database.load_samples(name) for name in chosen}


def _stored(
    name: str, demand: Samples, season: int | None, step: float | None, measured: Mapping[str, Samples]
) -> Series:
    """As the control plane itself reads its history: samples fall into steps, whose ticks come a little late; what was
    measured counts only where demand did.
    """
    import numpy as np

    from meshctl.control.past import DEMAND
    from meshctl.history.series import SeriesStore

    times, values = demand
    step = step or float(f"{np.median(np.diff(times)):.3g}")
    store = SeriesStore(step, min(_MOST, int((times[-1] - times[0]) / step) + 2))
    for moment, value in zip(times, values, strict=True):
        store.add(DEMAND, float(moment), float(value))
    start, grid = store.get(DEMAND)
    beside = {}
    for short, (moments, numbers) in measured.items():
        for moment, value in zip(moments, numbers, strict=True):
            store.add(short, float(moment), float(value))
        if short in store.names():
            beside[short] = np.where(np.isfinite(grid), store.on_grid(short, start, len(grid)), np.nan)
    return _make(name, start, step, grid, season, beside=beside)


def long_enough(series: Sequence[Series], horizon: int) -> list[Series]:
    """Leaves out, and says so, what is too short; raises UsageError where nothing is left."""
    from forecasting.evaluate.report import shortest

    least = shortest(horizon)
    for one in series:
        if len(one.values) < least:
            out.say(
                f"left out {one.name}: {len(one.values)} steps, fewer than the {least} that --horizon {horizon} needs"
            )
    kept = [one for one in series if len(one.values) >= least]
    if not kept:
        raise UsageError(f"no series of at least {least} steps; give longer ones, or a smaller --horizon")
    return kept


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}; choose another file") from error
