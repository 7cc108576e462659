"""Evaluations a second against bare calls: ``python -m tests.benchmarks.bench_throughput``.

The bound is what the network's calls of an evaluation take alone: 1,000 digits, five calls, one
thread, measured before and after.  Evaluations (sampling, features, distance with its standard
error) are run in this process and on one and two Ray workers with one thread each, as tasks of one
schedule and as populations of four.  All schedules start at noise levels of their own, so that
they share no call.  `--rounds` measures everything several times, in turn, and prints medians.
"""

import argparse
import functools
import itertools
import os
import statistics
import time
from collections.abc import Iterator

from tests.support.specs import evaluator_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from s3search.cluster import open_pool
from s3search.cluster.asking import Asker, Pool, PopulationSize
from s3search.evaluation.evaluator import Evaluator
from s3search.models import digits
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Measure, Measurement, Rung, measure

N_IMAGES, NFE = 1000, 5
POOLS = (("inline", 1), ("local", 1), ("local", 2))
POPULATIONS = (1, 4)


def questions() -> Iterator[Measure]:
    """Of schedules that share no network call."""
    base = published.unipc(edm(), nfe=NFE, order=3)
    for i in itertools.count():
        times = [base.times[0] * (1 - 1e-6 * i), *base.times[1:]]
        schedule = Schedule(process=base.process, times=times, steps=base.steps)
        yield measure(schedule, rung=Rung.SEARCH, n_images=N_IMAGES, noise_seed=0)


def bound(n: int) -> float:
    """Evaluations a second, if one were nothing but its network calls."""
    denoiser = digits.load()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((N_IMAGES, *denoiser.sample_shape), generator=generator)
    condition = denoiser.condition(N_IMAGES, generator)
    times = published.unipc(edm(), nfe=NFE, order=3).times[:NFE]
    states = [(noise * t, torch.full((N_IMAGES,), t)) for t in times]
    with torch.inference_mode():
        began = time.perf_counter()
        for _ in range(n):
            for x, t in states:
                denoiser(x, t, **condition)
    return n / (time.perf_counter() - began)


def rate(pool: Pool, population: int, asked: list[Measure]) -> float:
    """Evaluations a second, as a driver asks for them."""
    asker = Asker(pool, PopulationSize(fixed=population))
    began, done = time.perf_counter(), 0
    asker.begin(asked, are_last=True)
    for answer in asker.answers():
        assert isinstance(answer, Measurement) and answer.estimate is not None, answer.error
        done += 1
    return done / (time.perf_counter() - began)


def main(evaluations: int = 100, rounds: int = 2) -> None:
    """Prints a row for each pool and population."""
    torch.set_num_threads(1)
    spec = evaluator_spec(model="digits", features="digits", reference="digits")
    make_worker = functools.partial(Evaluator, spec)
    source = questions()
    bounds: list[float] = []
    found: dict[tuple[str, int, int], list[float]] = {}
    for address, n_workers in POOLS:
        with open_pool(address, make_worker, n_workers, 0, threads_per_worker=1) as pool:
            rate(pool, 1, list(itertools.islice(source, 4 * n_workers)))  # loads the models
            for _ in range(rounds):
                bounds.append(bound(evaluations // 2))
                for population in POPULATIONS:
                    asked = list(itertools.islice(source, evaluations))
                    own = found.setdefault((address, n_workers, population), [])
                    own.append(rate(pool, population, asked))
    most = statistics.median(bounds)
    print(f"{N_IMAGES} digits, {NFE} calls, 1 thread each, median of {rounds} x {evaluations}")
    print(f"bound {most:.2f} evaluations/s ({min(bounds):.2f} to {max(bounds):.2f})")
    print("pool    workers  population  evaluations/s  of the bound  of inline, same population")
    for (address, n_workers, population), rates in found.items():
        own = statistics.median(rates)
        inline = statistics.median(found["inline", 1, population])
        print(
            f"{address:6}  {n_workers:7}  {population:10}  {own:13.2f}  "
            f"{100 * own / most:10.1f} %  {own / inline:10.3f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    main(**vars(parser.parse_args()))
