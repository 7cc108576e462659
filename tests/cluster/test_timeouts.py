"""When a task that runs too long is given up, and what is said of it."""

from s3search.cluster.ray.timeouts import Timeouts


def test_a_task_is_given_up_the_second_time_with_both_workers_and_what_it_cost() -> None:
    timeouts = Timeouts()
    assert not timeouts.add("41", "gpu-1/17", 31.0)
    assert not timeouts.add("42", "gpu-1/18", 30.5)
    assert timeouts.add("41", "gpu-2/99", 30.5)
    assert timeouts.seconds("41") == 61.5
    failure = timeouts.failure("41", 30.0)
    assert failure.kind == "TaskTimedOut"
    assert "cluster.task_seconds=30 on gpu-1/17 and gpu-2/99" in failure.message


def test_a_task_of_the_same_name_begins_anew() -> None:
    timeouts = Timeouts()
    timeouts.add("41", "gpu-1/17", 31.0)
    timeouts.forget("41")
    assert not timeouts.add("41", "gpu-1/17", 31.0)
