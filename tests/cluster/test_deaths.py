"""Deaths of workers: which ones a task answers for."""

from s3search.cluster.ray.deaths import DOUBT_SECONDS, MAX_LOSSES, Death, Deaths, DeathVerdict


def _deaths(*nodes: str) -> Deaths:
    """A death of task "t" a second on each of the nodes, the first at 0."""
    deaths = Deaths()
    for i, node in enumerate(nodes):
        deaths.add("t", Death(node=node, worker=f"{node}/{i}", cause="killed", at=float(i)))
    return deaths


def test_one_death_is_no_reason_to_give_up_wherever_it_was() -> None:
    assert _deaths("a").verdict("t", {"a", "b"}, 0.0) is DeathVerdict.RETRY
    assert _deaths("a").verdict("t", {"b"}, 0.0) is DeathVerdict.RETRY


def test_two_deaths_on_living_nodes_are_quarantine_once_the_nodes_would_be_known_dead() -> None:
    deaths = _deaths("a", "b")
    assert deaths.verdict("t", {"a", "b"}, 1.0) is DeathVerdict.WAIT
    assert deaths.verdict("t", {"a", "b"}, 0.9 + DOUBT_SECONDS) is DeathVerdict.WAIT
    assert deaths.verdict("t", {"a", "b"}, 1.0 + DOUBT_SECONDS) is DeathVerdict.QUARANTINE
    assert deaths.reason("t").startswith(
        "in quarantine: 2 worker processes died while they ran this task, the last was b/1 (kill"
    )
    assert deaths.last("t").at == 1.0


def test_a_cluster_of_one_node_needs_no_waiting() -> None:
    assert _deaths("a", "a").verdict("t", {"a"}, 1.0) is DeathVerdict.QUARANTINE


def test_deaths_of_nodes_do_not_count_and_release_a_task_that_waits() -> None:
    deaths = _deaths("a", "b")
    assert deaths.verdict("t", {"a", "b", "c"}, 5.0) is DeathVerdict.WAIT
    assert deaths.verdict("t", {"b", "c"}, 14.0) is DeathVerdict.RETRY
    assert _deaths(*"abcdefgh").verdict("t", {"h", "x"}, 100.0) is DeathVerdict.RETRY
    assert _deaths(*"abcdefgxx").verdict("t", {"x"}, 100.0) is DeathVerdict.QUARANTINE


def test_a_task_that_outlives_none_of_many_nodes_is_given_up() -> None:
    nodes = [f"n{i}" for i in range(MAX_LOSSES)]
    assert _deaths(*nodes[1:]).verdict("t", {"x"}, 100.0) is DeathVerdict.RETRY
    assert _deaths(*nodes).verdict("t", {"x"}, 100.0) is DeathVerdict.QUARANTINE


def test_a_task_of_the_same_name_begins_anew() -> None:
    deaths = _deaths("a", "a")
    deaths.forget("t")
    deaths.add("t", Death(node="a", worker="a/9", cause="killed", at=3.0))
    assert deaths.verdict("t", {"a"}, 3.0) is DeathVerdict.RETRY
