"""How well each proxy ranks random schedules of the digits model, and what it costs.

python -m tests.benchmarks.bench_proxies [number of schedules]

Spearman's correlation with the distance at 1,000 images on common noise, over all schedules and
(in brackets) inside the best quarter; a proxy that uses noise has its own.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.proxies import ProxyScorer
from s3search.metrics.paired import Pairing
from s3search.models import digits
from s3search.schedules.schedule import Schedule
from s3search.search.edit.draft import random_schedule
from s3search.search.questions import Rung, measure
from s3search.search.space import Problem, load_space
from tests.support.specs import evaluator_spec

Array = npt.NDArray[np.float64]
Ranking = Callable[[list[Schedule]], Array]

_N_IMAGES, _SEED, _PROXY_SEED = 1000, 0, 1
_CPU = torch.device("cpu")


def random_schedules(evaluator: Evaluator, nfe: int, n: int) -> list[Schedule]:
    """n schedules of the space `usf`."""
    image = evaluator.describe().mean_image
    problem = Problem.found(load_space("usf"), evaluator.denoiser.process, mean_image=image)
    rng = np.random.default_rng(nfe)
    return [random_schedule(problem, nfe, rng) for _ in range(n)]


def distances(evaluator: Evaluator, schedules: list[Schedule], n_images: int, seed: int) -> Array:
    """The metric itself."""
    questions = [
        measure(one, rung=Rung.USER, n_images=n_images, noise_seed=seed) for one in schedules
    ]
    return np.array([evaluator.evaluate(question).estimate for question in questions])


def rankings(evaluator: Evaluator) -> dict[str, Ranking]:
    """Every way to rank schedules for less than the metric, cheapest first."""
    denoiser, features = evaluator.denoiser, digits.features()
    noise, images = NoiseBank(denoiser, _CPU), digits.images()
    proxies = ProxyScorer(denoiser, features, evaluator.metric.statistic.value, images, noise)

    def trajectory(n_images: int, pairing: Pairing, in_pixels: bool = False) -> Ranking:
        return lambda schedules: proxies.trajectory(
            schedules, n_images, _PROXY_SEED, pairing=pairing, in_pixels=in_pixels
        )

    return {
        "Gaussian": proxies.gaussian,
        "mixture": proxies.mixture,
        "trajectory, square in pixels, 64": trajectory(64, Pairing.SQUARE, in_pixels=True),
        "trajectory, square in features, 64": trajectory(64, Pairing.SQUARE),
        "trajectory, diagonal, 64": trajectory(64, Pairing.DIAGONAL),
        "trajectory, full, 16": trajectory(16, Pairing.FULL),
        "trajectory, full, 64": trajectory(64, Pairing.FULL),
        "FD@125, the metric's noise": lambda own: distances(evaluator, own, 125, _SEED),
        "FD@125, other noise": lambda own: distances(evaluator, own, 125, _PROXY_SEED),
    }


def agreement(scores: Array, truth: Array) -> str:
    """Rank correlation over all, and inside the best quarter; those without a score are left."""
    known = np.isfinite(scores)
    best = known & (truth <= np.quantile(truth, 0.25))
    whole, inside = (spearmanr(scores[k], truth[k]).statistic for k in (known, best))
    return f"{whole:.2f} ({inside:+.2f})"


def main(n: int = 300) -> None:
    """Prints one table."""
    torch.set_num_threads(1)
    evaluator = Evaluator(evaluator_spec(model="digits", features="digits", reference="digits"))
    ways = rankings(evaluator)
    print(f"{n} random schedules; milliseconds per schedule, all that is done once included")
    print(f"{'':36}{'NFE 5':>14}{'ms':>8}{'NFE 8':>16}{'ms':>8}")
    cells: dict[str, str] = dict.fromkeys(ways, "")
    for nfe in (5, 8):
        schedules = random_schedules(evaluator, nfe, n)
        truth = distances(evaluator, schedules, _N_IMAGES, _SEED)
        for name, way in ways.items():
            begin = time.perf_counter()
            scores = way(schedules)
            milliseconds = 1000 * (time.perf_counter() - begin) / n
            cells[name] += f"{agreement(scores, truth):>14}{milliseconds:8.2f}  "
    for name, cell in cells.items():
        print(f"{name:36}{cell}".rstrip())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
