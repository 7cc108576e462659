"""A search whose nodes are lost, on a real Ray cluster of several nodes."""

import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.ray_nodes import RayCluster, Said
from tests.support.studies import (
    FEWER,
    assert_same,
    content,
    second_times,
    study_config,
    study_file,
    undisturbed,
)

_PATIENCE = 120.0  # seconds for an evaluation to begin on a busy machine


@pytest.mark.cluster
def test_a_schedule_that_is_preempted_twice_is_measured_and_nothing_is_lost(
    cluster: RayCluster, tmp_path: Path
) -> None:
    """The first of its nodes is lost as a whole; of the second only the raylet, so that its
    process lives on and answers into the void.  All goes on where a third node joins.
    """
    overrides = ["search.algorithm=random", FEWER]
    expected = undisturbed(tmp_path, *overrides)
    schedule, time_of_schedule = _one_of_its_own_time(tmp_path, overrides, expected["proposals"])
    hold = tmp_path / "hold"
    hold.mkdir()
    overrides += [f"model.hold='{hold}'", f"model.hold_at={time_of_schedule!r}"]
    config = study_config(tmp_path, *overrides)
    cluster.resize(2)
    with ThreadPoolExecutor(1) as background:
        settings = [*overrides, "cluster.workers=2"]
        words = [word for setting in settings for word in ("--set", setting)]
        told = background.submit(
            cluster.run, "launch", study_file(tmp_path), *words, "--address", cluster.gcs
        )
        try:
            cluster.kill_node_of(_held(hold, 1, told))
            cluster.kill_raylet_above(_held(hold, 2, told))
            cluster.join()
            _held(hold, 3, told)
        finally:
            (hold / "go").touch()
        assert told.result().code == 0, told.result()

    found = content(config)
    assert_same(found, expected)
    rows = [row[:4] for row in found["evaluations"]]
    assert max(Counter(rows).values()) == 1
    assert {row[4] for row in found["evaluations"] if row[1] == schedule} == {"complete"}


def _one_of_its_own_time(
    folder: Path, overrides: list[str], proposals: list[tuple[object, ...]]
) -> tuple[str, float]:
    """The id of a schedule, and the time of its second network call, which no other has."""
    times = second_times(study_config(folder / "undisturbed", *overrides))
    n_of = Counter(times.values())
    middle = [str(p[1]) for p in proposals[len(proposals) // 2 :]]
    schedule = next(i for i in middle if n_of[times[i]] == 1)
    return schedule, times[schedule]


def _held(hold: Path, n: int, told: Future[Said]) -> int:
    """The process that is the ``n``th to be held; its name is in the folder."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        assert not told.done(), told.result()
        held = sorted(hold.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        if len(held) >= n:
            return int(held[n - 1].name)
        time.sleep(0.05)
    raise AssertionError(f"only {n - 1} processes were held")
