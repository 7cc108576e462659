"""When a task that runs too long is given up, and what is said of it."""

from s3search.cluster.ray.timeouts import Overrun, Overruns


def test_a_task_is_given_up_the_second_time_with_both_workers_and_what_it_cost() -> None:
    overruns = Overruns(30.0)
    assert not overruns.add("41", Overrun(worker="gpu-1/17", seconds=31.0))
    assert not overruns.add("42", Overrun(worker="gpu-1/18", seconds=30.5))
    assert overruns.add("41", Overrun(worker="gpu-2/99", seconds=30.5))
    assert overruns.seconds("41") == 61.5
    failure = overruns.failure("41")
    assert failure.kind == "TaskTimedOut"
    assert "cluster.task_seconds=30 on gpu-1/17 and gpu-2/99" in failure.message


def test_a_task_of_the_same_name_begins_anew() -> None:
    overruns = Overruns(30.0)
    overruns.add("41", Overrun(worker="gpu-1/17", seconds=31.0))
    overruns.forget("41")
    assert not overruns.add("41", Overrun(worker="gpu-1/17", seconds=31.0))
