"""How many workers there are, and on how many GPUs, where nobody says."""

from functools import partial
from typing import Any

import pytest

from s3search.cluster import open_pool
from s3search.cluster.sizes import AskedSizes, Place
from s3search.errors import InvalidConfig
from tests.suites.pool_suite import make_squarer, run_all, start_ray, tasks_of

_GPU_NODES = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 2.0}]
_CPU_NODES = [{"CPU": 4.0}, {"CPU": 2.0}, {}]


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        (_GPU_NODES, "auto", "auto", (8, 1.0)),
        (_GPU_NODES, 3, "auto", (3, 1.0)),
        (_GPU_NODES, 8, "auto", (8, 1.0)),
        (_GPU_NODES, 20, "auto", (20, 1 / 3)),
        (_GPU_NODES, "auto", 0.5, (16, 0.5)),
        (_GPU_NODES, "auto", 3, (2, 3)),
        (_GPU_NODES, "auto", 0, (8, 0)),
        (_GPU_NODES, 5, 2.0, (5, 2.0)),
        (_CPU_NODES, "auto", "auto", (6, 0.0)),
        (_CPU_NODES, 7, "auto", (7, 0.0)),
        (_CPU_NODES, "auto", 1.0, (1, 1.0)),  # which is then refused: there is no GPU
        ([{"CPU": 200.0}], "auto", "auto", (8, 0.0)),
        ([], "auto", "auto", (1, 0.0)),
    ],
)
def test_automatic_sizes_follow_from_the_nodes(
    nodes: list[dict[str, float]], workers: Any, gpus: Any, expected: tuple[int, float]
) -> None:
    sizes = AskedSizes(n_workers=workers, gpus_per_worker=gpus).on(nodes)
    assert (sizes.n_workers, sizes.gpus_per_worker) == pytest.approx(expected)
    assert sizes.min_workers == sizes.n_workers


def test_workers_that_a_search_need_not_wait_for_are_still_asked_for() -> None:
    asked = AskedSizes(n_workers="auto", gpus_per_worker="auto", min_workers=12)
    assert asked.on(_GPU_NODES).n_workers == 12
    with pytest.raises(InvalidConfig, match="n_workers=0"):
        AskedSizes(n_workers=0, gpus_per_worker="auto")
    with pytest.raises(InvalidConfig, match=r"gpus_per_worker=1\.5"):
        AskedSizes(n_workers="auto", gpus_per_worker=1.5)


@pytest.mark.parametrize(
    ("workers", "gpus", "n_gpus", "device", "said"),
    [
        (8, 1.0, 8, "cuda:0", ""),
        (16, 0.5, 8, "cuda", ""),
        (2, 1.0, 8, "cuda", "6 of 8 GPUs stay idle: 2 workers with 1 GPUs each"),
        (8, 0.0, 8, "cpu", "8 of 8 GPUs stay idle: 8 workers with 0 GPUs each, on cpu"),
        (8, 1.0, 8, "cpu", "8 workers hold GPUs and compute on the CPU: torch sees no GPU"),
        (1, 0.0, 4, "cuda", "3 of 4 GPUs stay idle"),  # in this process
        (1, 0.0, 1, "cuda", ""),
        (4, 0.0, 0, "cpu", ""),
    ],
)
def test_a_place_says_which_gpus_it_leaves_idle(
    workers: int, gpus: float, n_gpus: int, device: str, said: str
) -> None:
    note = Place(n_workers=workers, gpus_per_worker=gpus, n_gpus=n_gpus).idle_note(device)
    assert note.startswith(said)
    assert bool(note) == bool(said)


@pytest.mark.cluster
def test_a_pool_takes_the_gpus_that_ray_counts() -> None:
    start_ray()  # with one GPU, which is a number and no device
    opened = partial(open_pool, "local", make_squarer)
    with opened("auto", "auto") as pool:
        assert pool.place == Place(n_workers=1, gpus_per_worker=1.0, n_gpus=1)
        assert len(run_all(pool, tasks_of([1, 2]))) == 2
    with opened(2, "auto") as pool:
        assert pool.place.gpus_per_worker == 0.5
        assert len(run_all(pool, tasks_of([1, 2, 3]))) == 3
    with opened(1, 0) as pool:
        assert pool.place.idle_note("cpu").startswith("1 of 1 GPUs stay idle")
