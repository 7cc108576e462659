"""How many workers a pool has, and what each of them takes."""

from dataclasses import dataclass

from s3search.errors import InvalidConfig


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
