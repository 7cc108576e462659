"""Every published family on the digits model, at its default spacing and at the best of many.

Run with ``python -m tests.benchmarks.bench_published`` (about fifteen minutes on one core); prints
the README's table.  The best of four spacings and seven ends is chosen by the distance of 2,000
images on one noise seed, and shown, like the default, by that of 10,000 images on another.
"""

import argparse
from collections.abc import Callable

import torch

from s3search.errors import InvalidSchedule
from s3search.evaluation.evaluator import Evaluator
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.published.baselines import ENDS, TUNED_SPACINGS
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung, measure
from s3search.search.trial import schedule_key
from tests.support.specs import evaluator_spec

NFES = (3, 4, 5, 6, 8, 10)
CHOOSING, SHOWING = (2000, 100), (10_000, 101)  # images, noise seed

Make = Callable[..., Schedule]  # (process, nfe=..., spacing=..., end=...)


FAMILIES: dict[str, Make] = {
    "DDIM": published.ddim,
    "DPM-Solver++(2S)": published.dpmpp_2s,
    "DPM-Solver++(3S)": published.dpmpp_3s,
    "DPM-Solver++(2M)": published.dpmpp_2m,
    "DPM-Solver++(3M)": published.dpmpp_3m,
    "UniPC-2 bh2": lambda p, **w: published.unipc(p, order=2, variant="bh2", **w),
    "UniPC-3 bh2": lambda p, **w: published.unipc(p, order=3, variant="bh2", **w),
    "DEIS tAB-3": lambda p, **w: published.deis(p, order=3, **w),
    "DEIS rhoAB-3": lambda p, **w: published.rho_ab(p, order=3, **w),
    "iPNDM-3": lambda p, **w: published.ipndm(p, order=3, **w),
    "GHVB 2.5": lambda p, **w: published.momentum(p, order=3, beta=0.5, **w),
    "BDIA 0.5": published.bdia,
    "DPM-Solver-2": published.dpm2,
    "Heun": published.heun,
}


def main(nfes: tuple[int, ...] = NFES) -> None:
    """Prints a Markdown table: default / best of each family at each NFE."""
    torch.set_num_threads(1)
    evaluator = Evaluator(evaluator_spec(model="digits", features="digits", reference="digits"))

    def distance(schedule: Schedule, n_images: int, seed: int) -> float:
        question = measure(schedule, rung=Rung.USER, n_images=n_images, noise_seed=seed)
        found = evaluator.evaluate(question).estimate
        assert found is not None
        return found

    print("| solver | " + " | ".join(f"NFE {nfe}" for nfe in nfes) + " |")
    print("|---|" + "---|" * len(nfes))
    for name, make in FAMILIES.items():
        cells = []
        for nfe in nfes:
            default = _made(make, nfe)
            candidates = {
                schedule_key(schedule): schedule
                for spacing in TUNED_SPACINGS
                for end in ENDS
                for schedule in _made(make, nfe, spacing=spacing, end=end)
            }
            shown = f"{distance(default[0], *SHOWING):.3f}" if default else "-"
            if candidates:
                best = min(candidates.values(), key=lambda s: distance(s, *CHOOSING))
                shown += f" / {distance(best, *SHOWING):.3f}"
            cells.append(shown)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _made(make: Make, nfe: int, **where: object) -> list[Schedule]:
    """The schedule, or nothing where this solver has no such number of calls."""
    try:
        schedule = make(edm(), nfe=nfe, **where)
    except InvalidSchedule:
        return []
    return [schedule] if schedule.nfe == nfe else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nfe", type=int, nargs="*", default=NFES)
    main(tuple(parser.parse_args().nfe))
