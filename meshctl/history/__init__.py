"""What happened: regular series in memory, cumulative counters made into rates, and a SQLite file that survives
restarts.

:mod:`~meshctl.history.series` feeds forecasts, :mod:`~meshctl.history.counters` feeds observations, and
:mod:`~meshctl.history.database` keeps samples, decisions, events and experiments.
"""
