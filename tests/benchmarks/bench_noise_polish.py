"""Does a little noise in the steps help a polish?  On the digits, by equal images.

    python -m tests.benchmarks.bench_noise_polish --nfe 5 8

The best of 40 published schedules without noise by 1,000 images is polished as it is and with
the noise that a search begins with (`s3search.search.edit.noising`), and so is the best of 40
that have noise of their own; each from three seeds, for ``--images`` forward and backward, and
measured on 10,000 images of other noise, that of the steps too.
"""

import argparse
import math
import random
import statistics
from dataclasses import replace

import torch

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.polish.polishing import PolishSettings, polish
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.polishing import polish_size
from s3search.search.edit.noising import seeded_with_noise
from s3search.search.questions import Rung, measure
from s3search.search.space import Problem, load_space
from s3search.solvers.plan import compile_plan
from tests.support.specs import evaluator_spec

_STARTS, _START_SEED, _HELD_OUT_SEED = 40, 5, 999
_SEEDS = (1, 2, 3)
_NOISE = {"noise": {"gamma": [0.0, 1.0]}}


def _value(evaluator: Evaluator, schedule: Schedule, n_images: int, seed: int) -> float:
    asked = measure(schedule, rung=Rung.USER, n_images=n_images, noise_seed=seed)
    found = evaluator.evaluate(asked).estimate
    return math.inf if found is None else found


def _best(evaluator: Evaluator, nfe: int, *, noisy: bool) -> Schedule:
    known = published_solvers(evaluator.denoiser.process, nfe, noise=noisy)
    own_kind = [each.schedule for each in known if each.schedule.is_stochastic == noisy]
    tried = random.Random(0).sample(own_kind, min(_STARTS, len(own_kind)))
    return min(tried, key=lambda own: _value(evaluator, own, 1000, _START_SEED))


def _polished(evaluator: Evaluator, start: Schedule, images: int, seed: int) -> Schedule:
    iterations, n_images = polish_size(images)
    return polish(
        evaluator.denoiser,
        evaluator.metric,
        start,
        replace(PolishSettings(), iterations=iterations, n_images=n_images),
        noise=evaluator.noise,
        noise_seed=seed,
        batch_size=500,
    ).made.schedule


def _row(evaluator: Evaluator, name: str, start: Schedule, images: int) -> str:
    began = _value(evaluator, start, 10_000, _HELD_OUT_SEED)
    made = [_polished(evaluator, start, images, seed) for seed in _SEEDS]
    ended = [_value(evaluator, own, 10_000, _HELD_OUT_SEED) for own in made]
    plan = compile_plan(made[0])
    shares = [(plan.noise[r] / plan.levels[r].sigma) ** 2 for r in plan.noisy_rows]
    fresh = ", ".join(f"{100 * share:.0f} %" for share in shares) or "none"
    median, each = statistics.median(ended), ", ".join(f"{own:.4f}" for own in sorted(ended))
    return f"| {start.nfe} | {name} | {began:.4f} | {median:.4f} | {each} | {fresh} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 8])
    parser.add_argument("--images", type=int, default=20_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    evaluator = Evaluator(
        evaluator_spec(
            model="digits",
            features="digits",
            features_options={"network": "a"},
            reference="digits",
        )
    )
    print("| NFE | start | before | after, median | each | fresh share of each state |")
    print("|---|---|---|---|---|---|")
    for nfe in asked.nfe:
        plain = _best(evaluator, nfe, noisy=False)
        problem = Problem(load_space("usf", _NOISE), evaluator.denoiser.process)
        starts = {
            "best without noise": plain,
            "that, with a little noise": seeded_with_noise(problem, plain),
            "best with noise": _best(evaluator, nfe, noisy=True),
        }
        for name, start in starts.items():
            if start is not None:
                print(_row(evaluator, name, start, asked.images), flush=True)


if __name__ == "__main__":
    main()
