"""When a task that runs too long is given up, and what is said of it."""

from s3search.cluster.ray.timeouts import Timeout, Timeouts


def test_a_task_is_given_up_the_second_time_with_both_workers_and_what_it_cost() -> None:
    timeouts = Timeouts(30.0)
    assert not timeouts.add("41", Timeout(worker="gpu-1/17", seconds=31.0))
    assert not timeouts.add("42", Timeout(worker="gpu-1/18", seconds=30.5))
    assert timeouts.add("41", Timeout(worker="gpu-2/99", seconds=30.5))
    assert timeouts.seconds("41") == 61.5
    failure = timeouts.failure("41")
    assert failure.kind == "TaskTimedOut"
    assert "cluster.task_seconds=30 on gpu-1/17 and gpu-2/99" in failure.message


def test_a_task_of_the_same_name_begins_anew() -> None:
    timeouts = Timeouts(30.0)
    timeouts.add("41", Timeout(worker="gpu-1/17", seconds=31.0))
    timeouts.forget("41")
    assert not timeouts.add("41", Timeout(worker="gpu-1/17", seconds=31.0))
