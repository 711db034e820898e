"""The canary, in virtual time."""

from __future__ import annotations

import math

import pytest

from tests.support.releases import assigned, cluster, content, group, listener, versions
from xds.canary import Policy
from xds.rollout import Rollout
from xds.snapshot import Snapshot, check
from xds.types import CLUSTER, ENDPOINT, LISTENER

DEADLINE, SETTLE = 5.0, 1.0


def started(size: int = 3, policy: Policy | None = None) -> Rollout:
    """A group ``g`` of connected nodes, all of which have version 1."""
    machine = Rollout(policy or Policy(deadline=DEADLINE, settle=SETTLE))
    machine.publish(group(size), 0.0)
    for i in range(size):
        machine.joined(f"n{i}", "g", 0.0)
    return machine


def kinds(machine: Rollout) -> list[str]:
    return [notice.kind for notice in machine.take_notices()]


def reject(machine: Rollout, node_id: str, now: float, message: str = "no") -> None:
    """The node refuses the clusters that it has now."""
    clusters = machine.effective[node_id].get(CLUSTER)
    assert clusters is not None
    machine.rejected(node_id, CLUSTER, clusters.version, message, now)


def test_the_first_content_of_a_group_goes_to_everybody() -> None:
    machine = started()
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 1}
    assert kinds(machine) == []


def test_a_change_goes_to_the_lowest_id_first() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    assert versions(machine.effective) == {"n0": 2, "n1": 1, "n2": 1}
    [notice] = machine.take_notices()
    assert (notice.kind, notice.group, notice.node_id) == ("canary-started", "g", "n0")
    assert "cds" in notice.message
    [status] = machine.status()
    assert (status.state, status.canary, status.types, status.waiting) == ("trying", "n0", ("cds",), 2)


def test_after_the_ack_the_rest_follows() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.progressed("n0", owed=True, unasked=False, now=1.1)
    assert versions(machine.effective)["n1"] == 1
    machine.progressed("n0", owed=False, unasked=False, now=1.2)
    assert versions(machine.effective) == {"n0": 2, "n1": 2, "n2": 2}
    assert kinds(machine) == ["canary-started", "canary-passed"]
    assert machine.status() == []
    assert machine.wakes_at() == math.inf


def test_a_rejection_rolls_back_before_the_others_saw_it() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    reject(machine, "n0", 1.1, "bad timeout")
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 1}
    assert [(n.kind, n.message) for n in machine.take_notices()][1:] == [("canary-rolled-back", "cds: bad timeout")]
    [status] = machine.status()
    assert (status.state, status.canary, status.error) == ("rolled-back", "n0", "cds: bad timeout")


def test_refused_content_is_not_tried_again_until_it_changes() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    reject(machine, "n0", 1.1)
    machine.publish(group(3, 2), 2.0)
    machine.publish(group(3, 2, ports=(10, 11)), 3.0)
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 1}
    assert kinds(machine) == ["canary-started", "canary-rolled-back"]
    machine.publish(group(3, 3), 4.0)
    assert versions(machine.effective) == {"n0": 3, "n1": 1, "n2": 1}
    machine.progressed("n0", owed=False, unasked=False, now=4.1)
    assert versions(machine.effective) == {"n0": 3, "n1": 3, "n2": 3}


def test_refused_content_that_is_taken_back_leaves_a_calm_group() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    reject(machine, "n0", 1.1)
    machine.publish(group(3, 1), 2.0)
    assert machine.status() == []
    machine.publish(group(3, 2), 3.0)
    assert machine.canaries() == ["n0"], "it was gone meanwhile, so it is tried again"


def test_a_word_of_another_node_or_about_the_old_content_does_not_count() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    reject(machine, "n1", 1.1)
    old = group(1)["n0"].get(CLUSTER)
    assert old is not None
    machine.rejected("n0", CLUSTER, old.version, "late", 1.1)
    machine.rejected("n0", ENDPOINT, "whatever", "not held", 1.1)
    machine.progressed("n1", owed=False, unasked=False, now=1.1)
    assert machine.canaries() == ["n0"]
    assert versions(machine.effective)["n1"] == 1


def test_endpoints_flow_while_a_canary_tries() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.publish(group(3, 2, ports=(10, 11)), 1.5)
    assert versions(machine.effective) == {"n0": 2, "n1": 1, "n2": 1}
    for node_id, one in group(3, 1, ports=(10, 11)).items():
        assert machine.effective[node_id].get(ENDPOINT) == one.get(ENDPOINT)
    assert kinds(machine) == ["canary-started"]
    assert machine.wakes_at() == 1.0 + DEADLINE, "the deadline is that of the change"


def test_a_change_of_endpoints_alone_is_never_tried() -> None:
    machine = started()
    machine.publish(group(3, ports=(10,)), 1.0)
    assert machine.effective == group(3, ports=(10,))
    assert kinds(machine) == []


def test_old_clusters_keep_endpoints_that_are_published_no_longer() -> None:
    machine = started()
    machine.publish(group(3, 1, names=("other",)), 1.0)
    assert assigned(machine.effective["n0"]) == {"other"}
    assert assigned(machine.effective["n1"]) == {"backend", "other"}
    machine.publish(group(3, 1, names=("other",), ports=(77,)), 1.5)
    assert assigned(machine.effective["n1"]) == {"backend", "other"}
    for one in machine.effective.values():
        check(one)
    reject(machine, "n0", 2.0)
    assert assigned(machine.effective["n0"]) == {"backend", "other"}


def test_a_silent_canary_is_rolled_back_at_its_deadline() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.expire(1.0 + DEADLINE - 0.01)
    assert machine.canaries() == ["n0"]
    machine.expire(1.0 + DEADLINE)
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 1}
    assert "no answer within 5 s" in machine.status()[0].error


def test_a_silent_canary_may_be_published_past() -> None:
    machine = started(policy=Policy(deadline=DEADLINE, on_deadline="publish"))
    machine.publish(group(3, 2), 1.0)
    machine.expire(1.0 + DEADLINE)
    assert versions(machine.effective) == {"n0": 2, "n1": 2, "n2": 2}
    assert kinds(machine) == ["canary-started", "canary-passed"]


def test_what_a_silent_canary_stopped_is_tried_again_when_it_is_gone() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.expire(1.0 + DEADLINE)
    machine.left("n0", 30.0)
    assert machine.canaries() == ["n1"]
    machine.progressed("n1", owed=False, unasked=False, now=30.1)
    assert versions(machine.effective) == {"n0": 2, "n1": 2, "n2": 2}


def test_a_lost_canary_is_replaced_by_another_one() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.left("n0", 1.1)
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 1}
    machine.joined("n0", "g", 1.2)
    machine.expire(1.1 + SETTLE)
    assert machine.canaries() == ["n1"], "rather one that did not just vanish"
    assert machine.wakes_at() == 1.1 + SETTLE + DEADLINE


def test_two_lost_canaries_are_no_accident() -> None:
    machine = started(4)
    machine.publish(group(4, 2), 1.0)
    machine.left("n0", 1.1)
    machine.expire(2.1)
    machine.left("n1", 2.2)
    assert set(versions(machine.effective).values()) == {1}
    assert machine.status()[0].error == "n0 and n1 disconnected while they tried it"
    machine.expire(100.0)
    assert machine.canaries() == []


def test_when_everybody_was_lost_the_first_to_return_tries() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    for node_id in ("n0", "n1", "n2"):
        machine.left(node_id, 1.1)
    machine.expire(3.0)
    assert (machine.canaries(), machine.wakes_at()) == ([], math.inf)
    machine.joined("n2", "g", 4.0)
    assert machine.canaries() == ["n2"]
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 2}


def test_a_second_stream_of_a_node_is_not_another_node() -> None:
    machine = started(2)
    machine.joined("n0", "g", 0.5)
    machine.left("n1", 0.6)
    machine.publish(group(2, 2), 1.0)
    assert versions(machine.effective) == {"n0": 2, "n1": 2}, "nobody to protect"
    machine.joined("n1", "g", 1.1)
    machine.publish(group(2, 3), 2.0)
    machine.left("n0", 2.1)
    assert machine.canaries() == ["n0"], "its other stream is there"


@pytest.mark.parametrize("connected", [0, 1])
def test_without_others_a_change_is_just_published(connected: int) -> None:
    machine = Rollout(Policy())
    machine.publish(group(3), 0.0, groups=dict.fromkeys(group(3), "g"))
    for i in range(connected):
        machine.joined(f"n{i}", "", 0.0)
    machine.publish(group(3, 2), 1.0, groups=dict.fromkeys(group(3), "g"))
    assert versions(machine.effective) == {"n0": 2, "n1": 2, "n2": 2}
    assert kinds(machine) == []


def test_a_newer_publication_replaces_what_is_tried() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.publish(group(3, 3), 3.0)
    assert versions(machine.effective) == {"n0": 3, "n1": 1, "n2": 1}
    assert machine.wakes_at() == 3.0 + DEADLINE
    reject(machine, "n0", 3.1)
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 1}


def test_a_change_that_is_withdrawn_is_no_change() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.publish(group(3, 1), 1.5)
    assert versions(machine.effective) == {"n0": 1, "n1": 1, "n2": 1}
    assert kinds(machine) == ["canary-started", "canary-withdrawn"]
    assert machine.wakes_at() == math.inf


def test_new_resources_get_a_moment_to_be_asked_for() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.progressed("n0", owed=False, unasked=True, now=1.2)
    assert machine.wakes_at() == 1.2 + SETTLE
    machine.progressed("n0", owed=True, unasked=False, now=1.3)
    assert machine.wakes_at() == 1.0 + DEADLINE, "it asked, so it is waited for"
    machine.progressed("n0", owed=False, unasked=True, now=1.4)
    machine.expire(1.4 + SETTLE)
    assert kinds(machine) == ["canary-started", "canary-passed"]


def test_groups_do_not_wait_for_each_other() -> None:
    machine = Rollout(Policy())
    both = {"a0": content(1), "a1": content(1), "b0": content(1), "b1": content(1)}
    machine.publish(both, 0.0)
    for node_id in both:
        machine.joined(node_id, node_id[0], 0.0)
    machine.publish(dict.fromkeys(both, content(2)), 1.0)
    reject(machine, "a0", 1.1)
    machine.progressed("b0", owed=False, unasked=False, now=1.2)
    assert versions(machine.effective) == {"a0": 1, "a1": 1, "b0": 2, "b1": 2}


def test_who_connected_before_anything_was_published_is_known() -> None:
    machine = Rollout(Policy())
    for i in range(2):
        machine.joined(f"n{i}", "g", 0.0)
    machine.publish(group(2), 1.0)
    machine.publish(group(2, 2), 2.0)
    assert versions(machine.effective) == {"n0": 2, "n1": 1}


def test_a_node_that_is_published_no_longer_is_forgotten_and_replaced_as_canary() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    rest = {node_id: one for node_id, one in group(3, 2).items() if node_id != "n0"}
    machine.publish(rest, 2.0)
    assert versions(machine.effective) == {"n1": 2, "n2": 1}
    machine.publish({}, 3.0)
    assert (machine.effective, machine.status()) == ({}, [])


# Newcomers


def test_a_newcomer_gets_what_its_peers_have_and_what_is_its_own() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0)
    machine.publish(group(4, 2), 1.5)
    machine.joined("n3", "g", 1.6)
    assert versions(machine.effective) == {"n0": 2, "n1": 1, "n2": 1, "n3": 1}
    listeners = machine.effective["n3"].get(LISTENER)
    assert listeners is not None
    assert listeners.resources["inbound"] == listener(4)
    reject(machine, "n0", 2.0)
    assert versions(machine.effective)["n3"] == 1
    machine.publish(group(4, 3), 3.0)
    machine.progressed("n0", owed=False, unasked=False, now=3.1)
    assert versions(machine.effective)["n3"] == 3


def test_a_newcomer_does_not_get_clusters_that_came_with_the_change() -> None:
    machine = started()
    machine.publish(group(3, 1, names=("backend", "extra")), 1.0)
    machine.publish(group(4, 1, names=("backend", "extra")), 1.5)
    machine.joined("n3", "g", 1.6)
    clusters = machine.effective["n3"].get(CLUSTER)
    assert clusters is not None
    assert clusters.resources == {"backend": cluster("backend", 1)}
    check(machine.effective["n3"])


def test_a_newcomer_whose_stand_in_contradicts_itself_waits() -> None:
    machine = started()
    own = content(2, names=("zebra",), own_port=9)
    machine.publish({**group(3, 2), "n3": own}, 1.0)
    machine.joined("n3", "g", 1.1)
    assert "n3" in machine.effective, "nothing of it is shared, and it is consistent"
    mixed = dict(group(3, 1, names=("backend", "extra")))
    machine = started()
    machine.publish(mixed, 1.0)
    lost = {**mixed, "n3": _routed_to_extra()}
    machine.publish(lost, 1.5)
    machine.joined("n3", "g", 1.6)
    assert "n3" not in machine.effective
    machine.progressed("n0", owed=False, unasked=False, now=1.7)
    assert machine.effective["n3"] == lost["n3"]


def _routed_to_extra() -> Snapshot:
    """Shares the clusters of the change, and has routes of its own to one that came with it."""
    from tests.support.releases import endpoints
    from tests.support.resources import weighted_routes
    from xds.snapshot import resource, resource_set, snapshot
    from xds.types import ROUTE

    return snapshot(
        resource_set(CLUSTER, [cluster("backend", 1), cluster("extra", 1)]),
        resource_set(ENDPOINT, [endpoints("backend", (9,)), endpoints("extra", (9,))]),
        resource_set(LISTENER, [listener(4)]),
        resource_set(ROUTE, [resource("outbound", weighted_routes({"extra": 1, "backend": 1}))]),
    )


# Pre-flight


def test_what_preflight_refuses_reaches_nobody() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0, refused={"g": "Envoy says no"})
    assert set(versions(machine.effective).values()) == {1}
    [notice] = machine.take_notices()
    assert (notice.kind, notice.node_id, notice.message) == ("preflight-failed", "", "Envoy says no")
    machine.publish(group(3, 2, ports=(5,)), 2.0, refused={"g": "Envoy says no"})
    assert kinds(machine) == []
    machine.publish(group(3, 3), 3.0)
    assert machine.canaries() == ["n0"]


def test_first_content_that_preflight_refuses_is_silence() -> None:
    machine = Rollout(Policy(canary=False))
    groups = dict.fromkeys(group(2), "g")
    machine.publish(group(2), 0.0, groups=groups, refused={"g": "no"})
    machine.joined("n0", "g", 0.1)
    assert machine.effective == {}
    machine.publish(group(2, 2), 1.0, groups=groups)
    assert versions(machine.effective) == {"n0": 2, "n1": 2}


def test_without_a_canary_changes_go_out_at_once() -> None:
    machine = started(policy=Policy(canary=False))
    machine.publish(group(3, 2), 1.0)
    assert set(versions(machine.effective).values()) == {2}


def test_while_preflight_is_at_work_only_endpoints_move() -> None:
    machine = started()
    machine.publish(group(3, 2, ports=(5,)), 1.0, pending={"g"})
    assert set(versions(machine.effective).values()) == {1}
    assert machine.effective["n0"].get(ENDPOINT) == content(1, ports=(5,)).get(ENDPOINT)
    assert [one.state for one in machine.status()] == ["validating"]
    machine.publish(group(3, 2, ports=(5,)), 1.1)
    assert machine.canaries() == ["n0"]


def test_preflight_says_no_once_however_often_it_is_asked() -> None:
    machine = started()
    machine.publish(group(3, 2), 1.0, pending={"g"})
    machine.publish(group(3, 2), 1.1, refused={"g": "no"})
    machine.publish(group(3, 2, ports=(5,)), 1.2, pending={"g"})
    machine.publish(group(3, 2, ports=(5,)), 1.3, refused={"g": "no"})
    assert kinds(machine) == ["preflight-failed"]
    assert [(one.state, one.error) for one in machine.status()] == [("refused", "no")]
    machine.publish(group(3, 2, ports=(6,)), 1.4)
    assert machine.canaries() == ["n0"], "the endpoints were what was wrong"
