"""Noise in steps on the digits: what published samplers gain by it at many calls, and a search at
few.

    python -m tests.benchmarks.bench_noise published [--nfe 10 20 40]
    python -m tests.benchmarks.bench_noise search [--nfe 5 8] [--seeds 3] [--evaluations 100]

``published``: every published sampler at the best of its spacings and ends, chosen by the distance
of 500 images, among the best three by that of 2,000, and shown by that of 10,000 on another noise
seed; those without noise first.  ``search``: the default search with and without noise in its
space, at equal network calls; the held-out distance of 5,000 images, medians over seeds.  Calls
are those of the search, without the validation's.
"""

import argparse
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

import s3search
from s3search.errors import EvaluationFailed
from s3search.evaluation.evaluator import Evaluator
from s3search.processes import edm
from s3search.run.found import SearchResult
from s3search.schedules.published.baselines import PublishedSchedule, published_solvers
from s3search.search.questions import Rung, measure
from tests.support.specs import evaluator_spec

FIRST, CHOOSING, SHOWING = (500, 100), (2000, 100), (10_000, 101)  # images, noise seed
SPACES: Mapping[str, Mapping[str, Any]] = {
    "without noise": {"preset": "usf"},
    "with noise": {"preset": "usf", "noise": {"eta": [0.0, 1.0], "gamma": [0.0, 1.0]}},
}


def main() -> None:
    """Prints the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["published", "search"])
    parser.add_argument("--nfe", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=100)
    asked = parser.parse_args()
    if asked.what == "published":
        show_published(asked.nfe or [10, 20, 40])
    else:
        show_searches(asked.nfe or [5, 8], asked.seeds, asked.evaluations)


def show_published(nfes: list[int]) -> None:
    """A row for each sampler, a column for each number of calls."""
    torch.set_num_threads(1)
    evaluator = Evaluator(evaluator_spec(model="digits", features="digits", reference="digits"))

    def distance(each: PublishedSchedule, n_images: int, seed: int) -> float:
        question = measure(each.schedule, rung=Rung.SEARCH, n_images=n_images, noise_seed=seed)
        try:
            found = evaluator.evaluate(question).estimate
        except EvaluationFailed:
            return float("inf")
        return float("inf") if found is None else found

    table: dict[str, dict[int, float]] = {}
    for nfe in nfes:
        by_solver: dict[str, list[PublishedSchedule]] = {}
        for each in published_solvers(edm(), nfe, noise=True):
            draws = "with noise: " if each.schedule.is_stochastic else ""
            by_solver.setdefault(draws + each.solver, []).append(each)
        for solver, variants in by_solver.items():
            few = sorted(variants, key=lambda each: distance(each, *FIRST))[:3]
            best = min(few, key=lambda each: distance(each, *CHOOSING))
            table.setdefault(solver, {})[nfe] = distance(best, *SHOWING)
    print("| sampler | " + " | ".join(f"NFE {nfe}" for nfe in nfes) + " |")
    print("|---|" + "---|" * len(nfes))
    for solver in sorted(table, key=lambda name: (name.startswith("with noise"), name)):
        cells = [f"{table[solver][nfe]:.4f}" if nfe in table[solver] else "-" for nfe in nfes]
        print(f"| {solver} | {' | '.join(cells)} |", flush=True)


def show_searches(nfes: list[int], n_seeds: int, evaluations: int) -> None:
    """A row for each number of calls and space."""
    print("| NFE | space | held-out distance by seed | median | winners with noise | calls |")
    print("|---|---|---|---|---|---|")
    for nfe in nfes:
        for name, space in SPACES.items():
            found = [search_of(nfe, space, seed, evaluations) for seed in range(n_seeds)]
            values = [distance_of(each) for each in found]
            calls = median(searching_calls(each) for each in found) / 1e6
            noisy = sum(each.schedule.is_stochastic for each in found)
            shown = ", ".join(f"{value:.4f}" for value in values)
            print(
                f"| {nfe} | {name} | {shown} | {median(values):.4f} | {noisy} of {n_seeds} "
                f"| {calls:.2f} M |",
                flush=True,
            )


def search_of(nfe: int, space: Mapping[str, Any], seed: int, evaluations: int) -> SearchResult:
    """The default search of the digits in such a space."""
    return s3search.search(
        "digits",
        reference="digits",
        features="digits",
        nfe=nfe,
        evaluations=evaluations,
        space=dict(space),
        seed=seed,
        validation={"n_images": 5000},
        progress=False,
    )


def searching_calls(found: SearchResult) -> int:
    """Network calls, all but those of the validation."""
    ledger = found.status["ledger"]
    return sum(own["network_calls"] for name, own in ledger.items() if name != "validation")


def distance_of(found: SearchResult) -> float:
    """That of the winner on held-out noise."""
    table = found.table
    return float(table[table["is_winner"]].iloc[0]["distance"])


if __name__ == "__main__":
    main()
