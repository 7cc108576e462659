"""What the predictors are worth on the digits model, and what they cost.

Run with ``python -m tests.benchmarks.bench_predictor`` (some minutes on one core).  Random
schedules of the space `usf` at NFE 5; the target is the Frechet distance of 1,000 images.  For
every model and set of proxies: Spearman on 100 held-out schedules and, in brackets, inside the
best 30 % of them, and the seconds of the process to fit; means of three splits.
"""

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from s3search.errors import EvaluationFailed
from s3search.evaluation.evaluator import Evaluator
from s3search.models import digits
from s3search.models.gaussian import gaussian_distance
from s3search.schedules.schedule import Schedule
from s3search.search.edit.draft import random_schedule
from s3search.search.predictor.base import Example, Predictor
from s3search.search.predictor.choice import CANDIDATES, choose
from s3search.search.predictor.ranks import best_share, rank_correlation
from s3search.search.questions import Rung, measure
from s3search.search.space import Problem, load_space
from s3search.solvers.plan import compile_plans
from tests.support.specs import evaluator_spec

NFE, N_HELD_OUT, SPLITS = 5, 100, 3
SIZES = (50, 200)
PROXIES: dict[str, tuple[str, ...]] = {
    "none": (),
    "gaussian": ("gaussian",),
    "gaussian, fd125": ("gaussian", "fd125"),
}


class _Choice:
    """`choose` as a predictor."""

    def fit(self, examples: Sequence[Example], values: Sequence[float], seed: int) -> None:
        self.predict = choose(examples, values, seed).predictor.predict


def measured(n: int) -> tuple[list[Schedule], dict[str, np.ndarray], np.ndarray]:
    """n schedules with their proxies and distances; those that fail are drawn again."""
    evaluator = Evaluator(evaluator_spec(model="digits", features="digits", reference="digits"))
    rng, space = np.random.default_rng(0), load_space("usf")
    schedules: list[Schedule] = []
    scores: list[tuple[float, float]] = []
    while len(schedules) < n:
        drawn = random_schedule(Problem(space, evaluator.denoiser.process), NFE, rng)
        try:
            cheap, real = (
                evaluator.evaluate(
                    measure(drawn, rung=Rung.USER, n_images=n_images, noise_seed=seed)
                ).estimate
                for n_images, seed in ((125, 1), (1000, 0))
            )
        except EvaluationFailed:
            continue
        scores.append((cheap, real))
        schedules.append(drawn)
    flat = digits.images().double().flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    distance = gaussian_distance(
        compile_plans(schedules), flat.mean(0), np.maximum(values, 0.0), vectors
    )
    few, whole = np.array(scores).T
    return schedules, {"gaussian": distance, "fd125": few}, whole


def main() -> None:
    """Prints a Markdown table."""
    torch.set_num_threads(1)
    schedules, proxies, values = measured(max(SIZES) + N_HELD_OUT)
    models: dict[str, Callable[[], object]] = {
        name: lambda make=make: make(None) for name, make in CANDIDATES.items()
    }
    models["choose"] = _Choice
    head = " | ".join(f"N = {n} | seconds" for n in SIZES)
    sys.stdout.write(f"| proxies | model | {head} |\n|---|---|{'---|---|' * len(SIZES)}\n")
    for title, names in PROXIES.items():
        examples = [
            Example(schedule=s, proxies={name: float(proxies[name][i]) for name in names})
            for i, s in enumerate(schedules)
        ]
        for model, make in models.items():
            if model == ("decisions" if names else "proxies"):
                continue  # sees the same with every set of proxies, or nothing
            cells = [_cell(make, examples, values, n) for n in SIZES]
            sys.stdout.write(f"| {title} | {model} | {' | '.join(cells)} |\n")
            sys.stdout.flush()


def _cell(make: Callable[[], object], examples: list[Example], values: np.ndarray, n: int) -> str:
    found = []
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(examples))
        rest, out = order[:n], order[-N_HELD_OUT:]
        predictor: Predictor = make()
        began = time.process_time()
        predictor.fit([examples[i] for i in rest], values[rest], split)
        seconds = time.process_time() - began
        mean = predictor.predict([examples[i] for i in out]).mean
        top = best_share(values[out])
        inside = rank_correlation(mean[top], values[out][top])
        found.append((rank_correlation(mean, values[out]), inside, seconds))
    whole, inside, seconds = np.mean(found, axis=0)
    return f"{whole:.2f} ({inside:.2f}) | {seconds:.2f}"


if __name__ == "__main__":
    main()
