"""A search whose workers join and leave while it runs, on a real Ray cluster of several nodes."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from s3search.study.database.store import open_study
from tests.cluster.ray_nodes import RayCluster, Said
from tests.support.studies import (
    FEWER,
    assert_same,
    content,
    study_config,
    study_file,
    undisturbed,
)

T = TypeVar("T")

_PATIENCE = 120.0  # seconds for a worker to start on a busy machine


@pytest.mark.cluster
def test_a_second_worker_joins_a_search_works_and_leaves_again(
    cluster: RayCluster, tmp_path: Path
) -> None:
    """The search begins with the one of two workers that fits; the second is killed in a task,
    and its node goes as a machine does that is drained.
    """
    overrides = ["search.algorithm=random", "search.evaluations=16", "search.check=false", FEWER]
    expected = undisturbed(tmp_path, *overrides)
    hold = tmp_path / "hold"
    hold.mkdir()
    overrides += ["model.seconds=0.1", f"model.hold='{hold}'", "model.hold_at=80.0"]
    config = study_config(tmp_path, *overrides)

    def workers() -> set[int]:
        with open_study(config.storage.url, "t") as store:
            return {int(row["worker"].split("/")[1]) for row in store.rows()}

    cluster.resize(1)
    with ThreadPoolExecutor(1) as background:
        settings = [*overrides, "cluster.workers=2", "cluster.min_workers=1"]
        words = [word for setting in settings for word in ("--set", setting)]
        told = background.submit(
            cluster.run, "launch", study_file(tmp_path), *words, "--address", cluster.gcs
        )
        try:
            first = _until(told, lambda: _held(hold))
            cluster.join()
            (second,) = _until(told, lambda: _held(hold) - first)
        finally:
            (hold / "go").touch()
        _until(told, lambda: second in workers())
        os.kill(second, signal.SIGSTOP)  # in the midst of its next task
        cluster.end_node_of(second)
        assert told.result().code == 0, told.result()

    assert workers() == first | {second}
    found = content(config)
    assert_same(found, expected)
    assert max(Counter(row[:4] for row in found["evaluations"]).values()) == 1


def _held(hold: Path) -> set[int]:
    """Processes in which a task has begun."""
    return {int(file.name) for file in hold.iterdir() if file.name != "go"}


def _until(told: Future[Said], look: Callable[[], T]) -> T:
    """The first answer that is something."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        assert not told.done(), told.result()
        if answer := look():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"nothing after {_PATIENCE:.0f} s")
