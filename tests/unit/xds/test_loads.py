"""Load reports as values: what is believed of what clients report."""

from __future__ import annotations

import pytest

from xds.errors import RemoteError
from xds.loads import MAX_CLUSTERS, MAX_COUNT, ClusterLoad, check

GOOD = ClusterLoad("catalog", 10.0, issued=5, succeeded=4, failed=1, dropped=2, dropped_by={"lb": 2})


def test_a_real_report_is_believed() -> None:
    assert check((GOOD, ClusterLoad("idle", 10.0))) == (GOOD, ClusterLoad("idle", 10.0))


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (ClusterLoad("", 10.0), "cluster_name is empty"),
        (ClusterLoad("c" * 2000, 10.0), "2000 characters"),
        (ClusterLoad("c", 10.0, service_name="s" * 2000), "2000 characters"),
        (ClusterLoad("c", 0.0), "load_report_interval is 0 s"),
        (ClusterLoad("c", -1.0), "load_report_interval is -1 s"),
        (ClusterLoad("c", 86_401.0), "at most 86400 s"),
        (ClusterLoad("c", float("nan")), "load_report_interval"),
        (ClusterLoad("c", 1.0, issued=MAX_COUNT + 1), "a count of 1000000000001"),
        (ClusterLoad("c", 1.0, succeeded=2**64 - 1), "a count of"),
        (ClusterLoad("c", 1.0, dropped_by={"lb": 2**64 - 1}), "a count of"),
        (ClusterLoad("c", 1.0, dropped_by={str(n): 1 for n in range(101)}), "101 drop categories"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(load: ClusterLoad, problem: str) -> None:
    with pytest.raises(RemoteError, match=problem):
        check((GOOD, load))


def test_a_report_of_too_many_clusters_is_refused() -> None:
    with pytest.raises(RemoteError, match="at most 10000"):
        check((GOOD,) * (MAX_CLUSTERS + 1))
