"""Everything that can die in a search does, for real: the study is that of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.cluster.ray_nodes import RayCluster
from tests.conftest import MortalServer
from tests.support.studies import (
    FEWER,
    assert_same,
    content,
    evaluations,
    study_config,
    study_file,
    undisturbed,
)

T = TypeVar("T")

_PATIENCE = 150.0  # seconds for the next evaluations on a busy machine


@pytest.mark.cluster
def test_a_search_whose_every_part_is_killed_once_ends_as_the_undisturbed_one(
    cluster: RayCluster, mortal_server: MortalServer, tmp_path: Path
) -> None:
    """Killed by signal 9: a worker, a raylet, a whole node, the database, the driver.

    The undisturbed study ran in one process; evolution draws from its random stream between
    batches, and what it draws depends on all results before.
    """
    budget = ["search.evaluations=24", "search.check=false", FEWER]
    expected = undisturbed(tmp_path, *budget)
    hold = tmp_path / "hold"
    hold.mkdir()
    overrides = [*budget, f"model.hold='{hold}'", "model.hold_at=80.0"]
    overrides.append(f"storage.url='{mortal_server.url}'")
    settings = [*overrides, "cluster.workers=2", "cluster.min_workers=1"]
    config = study_config(tmp_path, *overrides)
    cluster.resize(3)
    command = ["launch", str(study_file(tmp_path)), "--address", cluster.gcs]
    command += [word for setting in settings for word in ("--set", setting)]

    with _driver(cluster, command) as driver:
        search = _Held(driver, hold, mortal_server.url)
        with search.after(0) as worker:
            os.kill(worker, signal.SIGKILL)
        with search.after(6) as worker:
            cluster.kill_raylet_above(worker)
        with search.after(12):
            mortal_server.crash()
        time.sleep(1.0)  # some evaluations long: the driver has something to write
        mortal_server.start()
        with search.after(18) as worker:
            cluster.kill_node_of(worker)
        with search.after(24):
            driver.kill()
    kept = evaluations(mortal_server.url)
    (hold / "go").touch()
    with _driver(cluster, command) as driver:
        out, err = driver.communicate(timeout=_PATIENCE)
        assert driver.returncode == 0, (out, err)

    found = content(config)
    assert set(kept) < set(found["evaluations"])
    assert_same(found, expected)
    assert max(Counter(row[:4] for row in found["evaluations"]).values()) == 1


@dataclass(frozen=True, slots=True)
class _Held:
    """A search whose evaluations wait where they begin while something is done to it."""

    driver: "subprocess.Popen[str]"
    hold: Path
    url: str

    @contextmanager
    def after(self, n: int) -> Iterator[int]:
        """Once there are ``n`` evaluations or more: a process in which one waits."""
        self._until(lambda: len(evaluations(self.url)) >= n if n else True)
        (self.hold / "go").unlink(missing_ok=True)
        yield self._until(self._last)
        (self.hold / "go").touch()

    def _last(self) -> int | None:
        """The living worker that began an evaluation last."""
        began = sorted(self.hold.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        living = [int(file.name) for file in began if Path("/proc", file.name, "exe").exists()]
        return living[-1] if living else None

    def _until(self, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            assert self.driver.poll() is None, self.driver.communicate()
            if answer := look():
                return answer
            time.sleep(0.1)
        raise AssertionError(f"nothing after {_PATIENCE:.0f} s")


@contextmanager
def _driver(cluster: RayCluster, command: list[str]) -> "Iterator[subprocess.Popen[str]]":
    """A driver of its own process, which ends by signal 9 with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", "s3search", *command],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
