"""What bfloat16 does to a ranking: ``python -m tests.benchmarks.bench_precision``.

Random schedules of the digits model, each measured in float32 and with ``cluster.precision =
"bfloat16"`` on the same noise: the rank correlation of all and of the better half, the largest
relative change, and for scale the rank correlation of float32 with itself on other noise.
"""

import argparse

import numpy as np
from scipy.stats import spearmanr

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.spec import Precision
from s3search.processes import edm
from s3search.schedules.schedule import Schedule
from s3search.search.edit.draft import random_schedule
from s3search.search.questions import Rung, measure
from s3search.search.space import Problem, load_space
from tests.support.specs import evaluator_spec


def distances(
    schedules: list[Schedule], precision: Precision, n_images: int, noise_seed: int
) -> list[float]:
    """Of all schedules."""
    evaluator = Evaluator(
        evaluator_spec(model="digits", features="digits", reference="digits", precision=precision)
    )
    questions = [
        measure(s, rung=Rung.SEARCH, n_images=n_images, noise_seed=noise_seed) for s in schedules
    ]
    found = [evaluator.evaluate(question).estimate for question in questions]
    return [distance for distance in found if distance is not None]


def main(n: int = 60, n_images: int = 500) -> None:
    """Prints a row for each number of calls."""
    space = load_space("usf")
    print(
        "calls  schedules  Spearman  of the better half  largest change  Spearman on other noise"
    )
    for nfe in (5, 10):
        rng = np.random.default_rng(nfe)
        schedules = [random_schedule(Problem(space, edm()), nfe, rng) for _ in range(n)]
        full = np.array(distances(schedules, "float32", n_images, 0))
        short = np.array(distances(schedules, "bfloat16", n_images, 0))
        other = np.array(distances(schedules, "float32", n_images, 2))
        better = full <= np.median(full)
        print(
            f"{nfe:5}  {n:9}  {spearmanr(full, short).statistic:8.4f}  "
            f"{spearmanr(full[better], short[better]).statistic:18.4f}  "
            f"{100 * np.abs(short / full - 1).max():12.2f} %  "
            f"{spearmanr(full, other).statistic:14.4f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--n-images", type=int, default=500)
    main(**vars(parser.parse_args()))
