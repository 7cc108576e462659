"""What sampling and scoring cost beside the network: ratios within one run, medians of many.

Run with ``python -m tests.benchmarks.bench_sampling``.  The bare cost of a network call is
measured on the very states and times that the loop hands to it, in turn with the loop, so that
drift of the machine hits both.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from s3search.metrics.frechet import FeatureStatistics, FrechetReference, frechet_estimate
from s3search.models import digits
from s3search.processes import edm
from s3search.schedules import published
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample

N_IMAGES, NFE = 1000, 5


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(rounds: int = 60, threads: int = 1) -> None:
    """Prints the ratio of the loop to its network calls, and the shares of one evaluation."""
    torch.set_num_threads(threads)
    denoiser, features = digits.load(), digits.features("a")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((N_IMAGES, *denoiser.sample_shape), generator=generator)
    condition = denoiser.condition(N_IMAGES, generator)
    schedule = published.unipc(edm(), nfe=NFE, order=3)
    plan = compile_plan(schedule)
    reference = FrechetReference.of(FeatureStatistics.of(features(digits.images()).numpy()))

    seen: list[tuple[Tensor, Tensor]] = []

    class Recording:
        process, sample_shape = denoiser.process, denoiser.sample_shape

        def __call__(self, x: Tensor, t: Tensor, **given: Tensor) -> Tensor:
            seen.append((x.clone(), t.clone()))
            return denoiser(x, t, **given)

    with torch.inference_mode():
        images = sample(Recording(), plan, noise, **condition)

        def bare() -> None:
            for x, t in seen:
                denoiser(x, t, **condition)

        loop, calls, scoring, compiling = [], [], [], []
        matrix = np.empty(0)
        for _ in range(rounds):
            loop.append(_seconds(lambda: sample(denoiser, plan, noise, **condition)))
            calls.append(_seconds(bare))
            scoring.append(_seconds(lambda: features(images).double().numpy()))
            matrix = features(images).double().numpy()
            compiling.append(_seconds(lambda: compile_plan(schedule)))
        distance = [
            _seconds(lambda: frechet_estimate(reference, matrix, n_blocks=10))
            for _ in range(rounds)
        ]
    ratio = statistics.median(a / b for a, b in zip(loop, calls, strict=True))
    parts = {
        "network calls": statistics.median(calls),
        "rest of the loop": statistics.median(loop) - statistics.median(calls),
        "features": statistics.median(scoring),
        "distance with its standard error": statistics.median(distance),
        "compiling the schedule": statistics.median(compiling),
    }
    whole = sum(parts.values())
    print(f"{N_IMAGES} digits, UniPC-3 at NFE {NFE}, {threads} thread(s), median of {rounds}")
    print(f"sampling / bare network calls: {ratio:.4f}")
    print(f"network: {parts['network calls'] / NFE / N_IMAGES * 1e6:.1f} us per image and call")
    for name, seconds in parts.items():
        print(f"  {name}: {1e3 * seconds:.2f} ms, {100 * seconds / whole:.1f} % of an evaluation")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.threads)
