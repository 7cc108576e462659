"""How many workers a pool has, what each of them takes, and what is left idle."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from s3search.errors import InvalidConfig

Auto = Literal["auto"]
Node = Mapping[str, float]
"""What a node of a cluster has, by Ray's names of it: "CPU", "GPU"."""

_MOST_ON_CPUS = 8  # workers, where nobody says how many: each holds a model


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many workers of which size are wanted; the search begins when ``min_workers`` fit."""

    n_workers: int
    min_workers: int
    gpus_per_worker: float

    def __post_init__(self) -> None:
        n_workers, least, gpus = self.n_workers, self.min_workers, self.gpus_per_worker
        if n_workers < 1:
            raise InvalidConfig(f"{n_workers=}: a pool needs at least one worker")
        if not 0 <= least <= n_workers:
            raise InvalidConfig(
                f"min_workers={least} with {n_workers=}: the search may wait for none (0) up to "
                "all of its workers, not for more"
            )
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise InvalidConfig(
                f"gpus_per_worker={gpus}: use 0, a share of one GPU, or a whole number"
            )

    @property
    def n_cpus(self) -> int:
        """The CPUs of one worker, in Ray's count."""
        return 0 if self.gpus_per_worker else 1

    def room(self, node: Node) -> int:
        """Workers that fit on an idle node; a share of a GPU is never cut from two GPUs."""
        each = self.gpus_per_worker
        if not each:
            return int(node.get("CPU", 0.0) // self.n_cpus)
        gpus = node.get("GPU", 0.0)
        return int(gpus // each) if each >= 1 else int(gpus) * int(1 / each + 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSizes:
    """What a study asks for, where "auto" is settled by what there is: a GPU for each worker if
    there are any (shared, if more workers are asked for), and as many workers as fit.
    """

    n_workers: int | Auto
    gpus_per_worker: float | Auto
    min_workers: int | None = None  # None: all

    def __post_init__(self) -> None:
        self.on(())  # numbers that mean nothing are refused before any node is asked

    def on(self, nodes: Sequence[Node]) -> Sizes:
        """The sizes on nodes of a cluster."""
        gpus = self._gpus_on(n_gpus(nodes))
        n = self._workers_on(nodes, gpus)
        least = n if self.min_workers is None else self.min_workers
        return Sizes(n_workers=n, min_workers=least, gpus_per_worker=gpus)

    def _gpus_on(self, n_gpus: int) -> float:
        if self.gpus_per_worker != "auto":
            return self.gpus_per_worker
        if not n_gpus:
            return 0.0
        n_workers = 1 if self.n_workers == "auto" else self.n_workers
        return 1.0 / max(1, math.ceil(n_workers / n_gpus))

    def _workers_on(self, nodes: Sequence[Node], gpus: float) -> int:
        if self.n_workers != "auto":
            return self.n_workers
        alone = Sizes(n_workers=1, min_workers=0, gpus_per_worker=gpus)
        fit = sum(alone.room(node) for node in nodes)
        return max(1, fit if gpus else min(fit, _MOST_ON_CPUS), self.min_workers or 0)


def n_gpus(nodes: Sequence[Node]) -> int:
    """GPUs of some nodes."""
    return sum(int(node.get("GPU", 0.0)) for node in nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pool's workers run: how many there are to be, and the GPUs that there are."""

    n_workers: int
    gpus_per_worker: float
    n_gpus: int

    def idle_note(self, device: str) -> str:
        """What to say of GPUs that workers on ``device`` leave idle; nothing of none."""
        if device == "cpu" and self.n_gpus and self.gpus_per_worker:
            return (
                f"{self.n_workers} workers hold GPUs and compute on the CPU: torch sees no GPU "
                "there; install a build of torch for them"
            )
        used = max(1.0, self.n_workers * self.gpus_per_worker) if device != "cpu" else 0.0
        idle = self.n_gpus - math.ceil(used - 1e-6)
        if idle <= 0:
            return ""
        return (
            f"{idle} of {self.n_gpus} GPUs stay idle: {self.n_workers} workers with "
            f"{self.gpus_per_worker:g} GPUs each, on {device}; all are used with "
            'workers = "auto", gpus_per_worker = "auto" and another address than "inline"'
        )
