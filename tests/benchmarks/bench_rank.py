"""How well a statistic of few images ranks schedules: ``python -m tests.benchmarks.bench_rank``.

Published solvers of 5 calls on the digits model, drawn over all, and mutations of the better ones.
The truth is their Fréchet distance of 10,000 images on noise that no other number here has seen.
Printed is Spearman's correlation with it of every kind of statistic, over all schedules and (in
brackets) inside the better half, as the mean over a few sets of noise that all schedules share;
then the milliseconds that one value takes once the images' features are known.  The last column is
of the truth's own images: what a kind that is asked another question than the Fréchet distance
cannot exceed by more images.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from s3search.errors import EvaluationFailed
from s3search.evaluation.evaluator import Evaluator
from s3search.metrics.cmmd import CmmdStatistic
from s3search.metrics.kernel import KernelStatistic
from s3search.metrics.mind import MindStatistic
from s3search.metrics.statistic import FrechetStatistic, Statistic
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.schedule import Schedule
from s3search.search.edit.variation import mutate
from s3search.search.space import Problem, load_space
from tests.support.specs import evaluator_spec

Array = npt.NDArray[np.float64]
Features = Sequence[Array]  # (n, d) of each schedule

NFE = 5
_SIZES = (250, 500, 1000)
_SEEDS = (11, 12, 13, 14)
_TRUTH = (10_000, 999)  # images, noise seed
_N_SORTED = 200  # images that choose which schedules are mutated
_KINDS: tuple[Callable[[Array], Statistic], ...] = (
    FrechetStatistic.of,
    KernelStatistic.of,
    CmmdStatistic.of,
    MindStatistic.of,
)


def seen(evaluator: Evaluator, schedule: Schedule, n_images: int, seed: int) -> Array:
    """Features (n, d) of one schedule's images."""
    found: Array = evaluator.metric.seen(evaluator.images(schedule, n_images, seed), {})
    return found


def schedules(evaluator: Evaluator, n: int) -> list[Schedule]:
    """Half of them published, from all over the list, half mutations of the best third."""
    process = evaluator.denoiser.process
    published = [own.schedule for own in published_solvers(process, NFE)]
    drawn = random.Random(1).sample(published, n - n // 2)
    statistic = FrechetStatistic(evaluator.reference)
    ranked = sorted(drawn, key=lambda one: statistic.value(seen(evaluator, one, _N_SORTED, 0)))
    space = load_space("full")
    problem = Problem.found(space, process, mean_image=evaluator.describe().mean_image)
    rng = np.random.default_rng(2)
    mutated: list[Schedule] = []
    while len(mutated) < n // 2:
        parent = ranked[int(rng.integers(max(1, n // 6)))]
        child = mutate(problem, parent, rng)
        try:
            statistic.value(seen(evaluator, child, _N_SORTED, 0))
        except EvaluationFailed:
            continue
        mutated.append(child)
    return drawn + mutated


def agreement(values: Array, truth: Array) -> tuple[float, float]:
    """Spearman's correlation over all, and inside the better half."""
    best = truth <= np.median(truth)
    whole, inside = (spearmanr(values[k], truth[k]).statistic for k in (truth < np.inf, best))
    return float(whole), float(inside)


def line(statistic: Statistic, few: Sequence[Features], many: Features, truth: Array) -> str:
    """Of one kind; ``few`` are the features of each set of noise, ``many`` those of the truth."""
    cells = f"{statistic.kind:10}"
    for n in _SIZES:
        began = time.perf_counter()
        values = [[statistic.value(own[:n]) for own in of_seed] for of_seed in few]
        taken = 1000 * (time.perf_counter() - began) / (len(few) * len(truth))
        found = np.mean([agreement(np.array(row), truth) for row in values], axis=0)
        cells += f"{f'{found[0]:.3f} ({found[1]:+.3f})':>16}{taken:7.1f}"
    whole, inside = agreement(np.array([statistic.value(own) for own in many]), truth)
    return cells + f"{f'{whole:.3f} ({inside:+.3f})':>18}"


def main(n: int = 24) -> None:
    """Prints one table."""
    torch.set_num_threads(1)
    evaluator = Evaluator(evaluator_spec(model="digits", features="digits", reference="digits"))
    images = evaluator.reference_images
    assert images is not None
    real = evaluator.metric.seen(images, {})
    chosen = schedules(evaluator, n)
    many = [seen(evaluator, s, *_TRUTH) for s in chosen]
    few = [[seen(evaluator, s, max(_SIZES), seed) for s in chosen] for seed in _SEEDS]
    truth = np.array([FrechetStatistic.of(real).value(own) for own in many])
    print(f"{n} schedules of {NFE} calls, {len(_SEEDS)} sets of noise; distances of", end=" ")
    print(f"{_TRUTH[0]:,} images from {truth.min():.2f} by {np.median(truth):.2f}", end=" ")
    print(f"to {truth.max():.2f}")
    print(f"{'':10}" + "".join(f"{f'{n:,} images':>16}{'ms':>7}" for n in _SIZES), end="")
    print(f"{f'{_TRUTH[0]:,} images':>18}")
    for made in _KINDS:
        statistic = made(real)
        statistic.value(few[0][0])  # what depends on the reference alone
        print(line(statistic, few, many, truth), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=24)
    main(parser.parse_args().schedules)
