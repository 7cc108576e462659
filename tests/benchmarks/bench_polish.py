"""Which descent polishes best: optimisers and step sizes on the zoo, one model left out at a time.

    python -m tests.benchmarks.zoo FOLDER                      # trains the models, once
    python -m tests.benchmarks.bench_polish FOLDER --nfe 5     # appends JSON lines to --output
    python -m tests.benchmarks.bench_polish FOLDER --table

Every descent begins at the same schedule, the best of 60 published ones by 1,000 images, costs
``--images`` forward and backward, and is measured on 10,000 images of other noise.

    matrix       full-matrix Adam, as the search has it
    diagonal     torch's Adam, the same decay
    lbfgs        L-BFGS-B on fixed noise, new in each of three rounds of growing size (sample
                 average approximation)

and without a gradient, at the same cost:

    differences  as the search has it
    cmaes        CMA-ES of generations on common noise, 250 images a candidate; the mean in the end
    spsa         two random directions at each step (Spall 1992), under full-matrix Adam
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cmaes import CMA
from scipy.optimize import minimize

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.live import LIVE, LiveObjects
from s3search.evaluation.polish import losses
from s3search.evaluation.polish.adam import RecoveringAdam
from s3search.evaluation.polish.differences import PlanDifferences
from s3search.evaluation.polish.differentiable import DifferentiableDenoiser, frozen
from s3search.evaluation.polish.gradient import PlanGradient
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung, measure
from s3search.solvers.coefficients import coefficient_table
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range
from tests.benchmarks.zoo import ZOO, load
from tests.support.specs import evaluator_spec

_STARTS, _START_SEED, _HELD_OUT_SEED = 60, 5, 999
_RATES = {
    "matrix": (0.02, 0.04, 0.08, 0.16),
    "diagonal": (0.006, 0.012, 0.025),
    "lbfgs": (0.0,),
    "differences": (0.0,),
    "cmaes": (0.02,),
    "spsa": (0.08,),
}
_SPSA = (200, 2, 0.02)  # images, directions, step of a difference
_CMAES = 250  # images of a candidate
_ROUNDS = (0.5, 1.0, 2.0)  # images of a round of L-BFGS, relative


class Descent:
    """One schedule on its way down."""

    def __init__(self, evaluator: Evaluator, schedule: Schedule) -> None:
        numbers = coefficient_table(schedule)
        trained = trained_range(evaluator.denoiser.process)
        self.table = TrainableTable(
            numbers, carries=False, free=frozenset(Freedom), trained=trained
        )
        given: dict[str, Any] = {
            "denoiser": DifferentiableDenoiser(evaluator.denoiser, numbers.nfe, recompute=None),
            "seen": evaluator.metric.view.differentiable,
            "table": self.table,
            "noise": evaluator.noise,
            "batch_size": 1000,
        }
        self._gradient, self._differences = PlanGradient(**given), PlanDifferences(**given)
        self._loss = FrechetLoss(evaluator.reference, evaluator.noise.device)

    def at(self, i: int, n_images: int) -> tuple[float, list[torch.Tensor]]:
        """Loss and gradient on the noise of one iteration."""
        batches = self._gradient.batches(losses.iteration_seed(1, i), n_images)
        return self._gradient(batches, self._loss)

    def matrix(self, images: int, rate: float) -> None:
        """Full-matrix Adam."""
        n, iterations = _size(images)
        adam = RecoveringAdam(self.table.moves, self.table.project, rate)
        adam.run(lambda i: self.at(i, n), iterations)

    def diagonal(self, images: int, rate: float) -> None:
        """Torch's Adam."""
        n, iterations = _size(images)
        adam = torch.optim.Adam(self.table.moves, betas=(0.9, 0.99))
        for i in range(iterations):
            _, gradient = self.at(i, n)
            for move, own in zip(self.table.moves, gradient, strict=True):
                move.grad = own
            decay = 0.5 * (1.0 + math.cos(math.pi * i / iterations))
            adam.param_groups[0]["lr"] = rate * min(1.0, (i + 1) / 5) * decay
            adam.step()
            self.table.project()

    def lbfgs(self, images: int, _: float) -> None:
        """L-BFGS-B on noise that stays for a round."""
        n, iterations = _size(images)
        for i, share in enumerate(_ROUNDS):
            size = int(share * n)
            most = max(2, int(iterations / len(_ROUNDS) / share))

            def value(x: np.ndarray, i: int = i, size: int = size) -> tuple[float, np.ndarray]:
                self._set(x)
                loss, gradient = self.at(i, size)
                flat = torch.cat([g.flatten() for g in gradient]).numpy()
                is_finite = math.isfinite(loss) and np.isfinite(flat).all()
                return (loss, flat) if is_finite else (1e6, np.zeros_like(flat))

            start = torch.cat([move.detach().flatten() for move in self.table.moves]).numpy()
            limits = {"maxfun": most, "maxiter": most, "maxcor": 20}
            found = minimize(value, start, jac=True, method="L-BFGS-B", options=limits)
            self._set(found.x)

    def differences(self, images: int, _: float) -> None:
        """Rounds of differences."""
        self._differences.run(self._lowered, images)

    def cmaes(self, images: int, sigma: float) -> None:
        """CMA-ES in the numbers that change the plan."""
        search = CMA(mean=np.zeros(len(self._places)), sigma=sigma, seed=0)
        for i in range(max(1, images // (_CMAES * search.population_size))):
            found = []
            for _ in range(search.population_size):
                x = search.ask()
                value = self._value(x, i, _CMAES)
                found.append((x, value if math.isfinite(value) else 1e6))
            search.tell(found)
        self._place(search.mean)

    def spsa(self, images: int, rate: float) -> None:
        """Simultaneous perturbations."""
        n, n_directions, step = _SPSA
        rng = np.random.default_rng(0)

        def slope(i: int) -> tuple[float, list[torch.Tensor]]:
            x, found, values = self._flat()[self._places], np.zeros(len(self._places)), []
            for _ in range(n_directions):
                way = rng.choice([-1.0, 1.0], len(x))
                high, low = (self._value(x + sign * step * way, i, n) for sign in (1, -1))
                found += (high - low) / (2 * step) * way / n_directions
                values += [high, low]
            self._place(x)
            flat = np.zeros(len(self._flat()))
            flat[self._places] = found
            return float(np.mean(values)), self._split(flat)

        adam = RecoveringAdam(self.table.moves, self.table.project, rate)
        adam.run(slope, images // (2 * n_directions * n))

    def _lowered(self, i: int, n: int) -> tuple[Any, Any]:
        return self._gradient.batches(losses.iteration_seed(1, i), n), self._loss

    def _value(self, x: np.ndarray, i: int, n: int) -> float:
        self._place(x)
        return self._gradient.value(*self._lowered(i, n))

    @cached_property
    def _places(self) -> np.ndarray:
        """Where the numbers that change the plan are, in the flat moves."""
        sizes = np.cumsum([0, *(move.numel() for move in self.table.moves)])
        with torch.no_grad():
            return np.array([sizes[m.leaf] + m.place for m in self._differences.moved_plans()])

    def _place(self, x: np.ndarray) -> None:
        flat = np.zeros(sum(move.numel() for move in self.table.moves))
        flat[self._places] = x
        self._set(flat)

    def _flat(self) -> np.ndarray:
        return torch.cat([move.detach().flatten() for move in self.table.moves]).numpy()

    def _split(self, flat: np.ndarray) -> list[torch.Tensor]:
        parts = torch.tensor(flat).split([move.numel() for move in self.table.moves])
        return [part.view_as(m) for part, m in zip(parts, self.table.moves, strict=True)]

    def _set(self, x: np.ndarray) -> None:
        with torch.no_grad():
            for move, part in zip(self.table.moves, self._split(x), strict=True):
                move.copy_(part)
        self.table.project()


def _size(images: int) -> tuple[int, int]:
    """(images of an iteration, iterations)."""
    n = round(2.5 * math.sqrt(images))
    return n, round(images / 2 / n)


def _evaluator(folder: Path, name: str) -> Evaluator:
    member = load(folder, name)
    live = LiveObjects(model=member.denoiser, metric=member.features, reference=member.images)
    return Evaluator(
        evaluator_spec(
            model=LIVE,
            model_options={"fingerprint": name},
            features=LIVE,
            features_options={"object": "features"},
            reference=LIVE,
            reference_options={"object": "images"},
            live=live,
        )
    )


def _value(evaluator: Evaluator, schedule: Schedule, n_images: int, seed: int) -> float:
    asked = measure(schedule, rung=Rung.USER, n_images=n_images, noise_seed=seed)
    found = evaluator.evaluate(asked).estimate
    return math.inf if found is None else found


def _start(evaluator: Evaluator, nfe: int) -> Schedule:
    known = [each.schedule for each in published_solvers(evaluator.denoiser.process, nfe)]
    tried = random.Random(0).sample(known, min(_STARTS, len(known)))
    return min(tried, key=lambda own: _value(evaluator, own, 1000, _START_SEED))


def descended(
    folder: Path, name: str, nfe: int, images: int, kinds: Sequence[str]
) -> list[dict[str, Any]]:
    """What every optimiser and rate makes of one model's start."""
    evaluator = _evaluator(folder, name)
    start = _start(evaluator, nfe)
    shown = {"model": name, "nfe": nfe, "images": images}
    shown["start"] = _value(evaluator, start, 10_000, _HELD_OUT_SEED)
    rows = []
    for kind in kinds:
        for rate in _RATES[kind]:
            descent = Descent(evaluator, start)
            with frozen(evaluator.denoiser), frozen(evaluator.metric.view.function):
                getattr(descent, kind)(images, rate)
            made = descent.table.moved_schedule({})
            found = _value(evaluator, made, 10_000, _HELD_OUT_SEED)
            rows.append({**shown, "kind": kind, "rate": rate, "found": found})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """End over start for every model and setting, their geometric means, and for every model which
    setting the others choose.
    """
    settings = list(dict.fromkeys((r["kind"], r["rate"]) for r in rows))
    cases = list(dict.fromkeys((r["model"], r["nfe"], r["images"]) for r in rows))
    share = {
        ((r["model"], r["nfe"], r["images"]), (r["kind"], r["rate"])): r["found"] / r["start"]
        for r in rows
    }
    names = [f"{kind} {rate:g}" if rate else kind for kind, rate in settings]
    lines = [
        f"| model, NFE, images | start | {' | '.join(names)} | the others choose |",
        "|---|" + "---|" * (len(names) + 2),
    ]

    def mean(setting: tuple[str, float], left_out: str) -> float:
        logs = [math.log(share[case, setting]) for case in cases if case[0] != left_out]
        return math.exp(sum(logs) / len(logs))

    start = {(r["model"], r["nfe"], r["images"]): r["start"] for r in rows}
    for case in cases:
        chosen = min(settings, key=lambda own: mean(own, case[0]))
        cells = [f"{share[case, own]:.2f}" for own in settings]
        label = f"{case[0]}, {case[1]}, {case[2]:,}"
        name = names[settings.index(chosen)]
        lines.append(f"| {label} | {start[case]:.3f} | {' | '.join(cells)} | {name} |")
    means = [f"{mean(own, ''):.3f}" for own in settings]
    lines.append(f"| geometric mean | | {' | '.join(means)} | |")
    return "\n".join(lines)


def main() -> None:
    """Descends on what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=list(ZOO), choices=[*ZOO, "digits"])
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--kind", nargs="+", default=list(_RATES), choices=list(_RATES))
    parser.add_argument("--output", type=Path, default=Path("polish.jsonl"))
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.table:
        print(table_of([json.loads(line) for line in asked.output.read_text().splitlines()]))
        return
    for name in asked.model:
        rows = descended(asked.folder, name, asked.nfe, asked.images, asked.kind)
        with asked.output.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
