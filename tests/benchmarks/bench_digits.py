"""How good the embedded model is: its fine solve, the bias of the distance, and real against real.

Run with ``python -m tests.benchmarks.bench_digits``; some minutes on one core.
"""

import numpy as np
import torch

from s3search.evaluation.evaluator import Evaluator
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.models import digits
from s3search.processes import edm
from s3search.schedules import published
from s3search.search.questions import Rung, measure
from tests.support.specs import evaluator_spec

N_IMAGES, SEEDS, SPLITS = 10_000, (1, 3, 5), 20


def _distances(network: str, seeds: tuple[int, ...]) -> None:
    spec = evaluator_spec(
        model="digits",
        features="digits",
        features_options={"network": network},
        reference="digits",
    )
    evaluator = Evaluator(spec)
    end = published.End(rule="denoise")
    for nfe in (100, 5):
        schedule = published.dpmpp_2m(edm(), nfe=nfe, spacing="karras", end=end)
        values = [
            evaluator.evaluate(
                measure(schedule, rung=Rung.USER, n_images=N_IMAGES, noise_seed=seed)
            ).estimate
            for seed in seeds
        ]
        spread = ", ".join(f"{value:.4f}" for value in values)
        print(
            f"features {network}: DPM-Solver++(2M), karras, NFE {nfe}, {N_IMAGES:,} images: "
            f"mean {np.mean(values):.4f} (noise seeds {seeds}: {spread})"
        )


def _real_against_real(network: str) -> None:
    with torch.inference_mode():
        features = digits.features(network)(digits.images()).double().numpy()
    whole = FrechetReference.of(FeatureStatistics.of(features))
    rng = np.random.default_rng(0)
    halves, bootstraps = [], []
    for _ in range(SPLITS):
        order = rng.permutation(len(features))
        a, b = np.array_split(features[order], 2)
        halves.append(
            FrechetReference.of(FeatureStatistics.of(a)).distance(FeatureStatistics.of(b))
        )
        drawn = features[rng.integers(len(features), size=N_IMAGES)]
        bootstraps.append(whole.distance(FeatureStatistics.of(drawn)))
    print(
        f"features {network}: real half against real half ({len(features) // 2} images each), "
        f"mean of {SPLITS} splits {np.mean(halves):.3f} (sd {np.std(halves):.3f})"
    )
    print(
        f"features {network}: {N_IMAGES:,} draws of the real images against them, "
        f"mean {np.mean(bootstraps):.4f}: what the count alone costs"
    )


def main() -> None:
    """Prints both for both feature networks."""
    torch.set_num_threads(1)
    for network in ("a", "b"):
        _real_against_real(network)
        _distances(network, SEEDS)


if __name__ == "__main__":
    main()
