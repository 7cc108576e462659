"""What sharing the first steps of schedules saves: ``python -m tests.benchmarks.bench_prefixes``.

With common noise two schedules whose plans begin alike make the same network calls until they
differ.  Whole studies of the digits model are run, and the schedules that their searches proposed
go, in order, through caches of what the network answered: without bounds; with room for 64, 16
and 8 answers to all images, of which the latest calls of plans go first (as a worker's cache does)
or, in brackets, the least recently used; and through one cache of 64 on each of 8 workers.
Printed is the share of the search's image-calls (published solvers fill the caches and are not
counted) that the cache answers, and for the cache of 64 the part of it that is first calls.
"""

import argparse
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from pathlib import Path

from s3search.run.launching import launch
from s3search.search.questions import Rung
from s3search.solvers.plan import compile_plan
from s3search.solvers.prefix import call_keys
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, parse_config

_ROOMS = (64, 16, 8)
_WORKERS = 8

Asked = tuple[tuple[str | None, ...], int, bool]  # keys of the calls, images, whether it counts


class _Cache:
    """Keys and the images that their answers are known for."""

    def __init__(self, room: int, *, latest_first: bool) -> None:
        self._room, self._latest_first = room, latest_first
        self._by_call: defaultdict[int, OrderedDict[str, int]] = defaultdict(OrderedDict)

    def known(self, call: int, key: str, n_images: int) -> int:
        """Images that it answers, of so many."""
        kept = self._by_call[call if self._latest_first else 0]
        known = kept.pop(key, 0)
        kept[key] = max(known, n_images)
        if sum(map(len, self._by_call.values())) > self._room:
            self._by_call[max(k for k, own in self._by_call.items() if own)].popitem(last=False)
        return min(known, n_images)


def saved(asked: Iterable[Asked], room: int, *, latest_first: bool = True) -> tuple[float, float]:
    """The share of the image-calls that a cache answers, and of those that are first calls."""
    cache = _Cache(room, latest_first=latest_first)
    total = hits = firsts = 0
    for keys, n_images, counts in asked:
        for call, key in enumerate(keys):
            known = 0 if key is None else cache.known(call, key, n_images)
            total += n_images * counts
            hits += known * counts
            firsts += known * counts * (call == 0)
    return 100 * hits / max(total, 1), 100 * firsts / max(total, 1)


def asked_in(config: StudyConfig) -> list[Asked]:
    """Runs a study; its schedules in the order they were proposed."""
    launch(config, lambda _: None)
    rungs = (Rung.SEARCH.value, Rung.STOPPED.value)
    with open_study(config.storage.url, config.study.name) as store:
        images = {row.schedule_id: row.n_images for row in store.measured() if row.rung in rungs}
        return [
            (
                call_keys(compile_plan(trial.schedule)),
                images.get(trial.id, 0),
                not trial.origin.is_baseline,
            )
            for trial in store.trials()
        ]


def _config(folder: str, algorithm: str, preset: str, nfe: int, evaluations: int) -> StudyConfig:
    return parse_config(
        {
            "study": {"name": f"{algorithm} {preset} {nfe}"},
            "model": {"loader": "digits"},
            "space": {"preset": preset, "nfe": [nfe]},
            "metric": {"features": "digits"},
            "reference": {"images": "digits"},
            "search": {"evaluations": evaluations, "algorithm": algorithm, "n_images": 200},
            "validation": {"n_images": 200, "finalists": 1},
            "storage": {"url": f"sqlite:///{Path(folder) / 'study.db'}"},
            "cluster": {"address": "inline"},
        }
    )


def main(evaluations: int = 150) -> None:
    """Prints a row for each study."""
    print(
        "algorithm      space   nfe  schedules  unbounded  64 (LRU)       16 (LRU)       "
        "8 (LRU)        8 workers  first of 64"
    )
    for algorithm in ("evolution", "autodiffusion", "s3"):
        for preset, nfe in (("usf", 5), ("usf", 10), ("full", 5)):
            with tempfile.TemporaryDirectory() as folder:
                asked = asked_in(_config(folder, algorithm, preset, nfe, evaluations))
            bounded = "  ".join(
                f"{saved(asked, room)[0]:5.1f} ({saved(asked, room, latest_first=False)[0]:5.1f})"
                for room in _ROOMS
            )
            apart = [saved(asked[i::_WORKERS], _ROOMS[0])[0] for i in range(_WORKERS)]
            print(
                f"{algorithm:13}  {preset:6}  {nfe:3}  {len(asked):9}  "
                f"{saved(asked, 10**9)[0]:9.1f}  {bounded}  {sum(apart) / _WORKERS:9.1f}  "
                f"{saved(asked, _ROOMS[0])[1]:11.1f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=150)
    main(parser.parse_args().evaluations)
