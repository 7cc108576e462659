"""What studies claim of found against published, beside what is measured from outside.

Run with ``python -m tests.benchmarks.bench_claims``; prints the table of docs/bench.md.  Stock
schedulers of diffusers and the exported schedule run without s3search, on noise of their own.  Two
cores take the models in two processes (``--models``).
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.support.claims import MODELS, NFE, Brought, Outside, brought, claim_of, study
from tests.support.outside import Estimated

BUDGETS = (20, 60, 300, 1000)
SEARCHED, MEASURED = 100, 1000  # images of a search's evaluation, and on held-out noise

_HEAD = (
    "model",
    "evaluations",
    "verdict",
    "claimed ratio",
    "outside",
    "claimed, less real images",
    "outside, less real images",
    "found",
    "best stock scheduler",
    "seconds of one core",
)


def main(models: tuple[str, ...], budgets: tuple[int, ...], n_measured: int) -> None:
    """Prints a Markdown table, a row as soon as it is known."""
    torch.set_num_threads(1)
    print(f"NFE {NFE}, {SEARCHED} images in the search, {n_measured:,} held out and outside\n")
    print(_line(_HEAD))
    print("|---" * len(_HEAD) + "|")
    for name in models:
        with TemporaryDirectory() as temporary:
            model = brought(name, Path(temporary))
            outside = Outside(model, n_measured)
            for budget in budgets:
                print(_line((name, *_row(model, outside, budget, n_measured))), flush=True)


def _row(model: Brought, outside: Outside, budget: int, n_measured: int) -> tuple[str, ...]:
    with TemporaryDirectory() as temporary:
        folder, began = Path(temporary), time.process_time()
        config = study(
            model, folder, evaluations=budget, n_images=SEARCHED, n_validated=n_measured
        )
        claim = claim_of(config, folder)
        seconds = time.process_time() - began
        measured = outside.against(claim.schedule)
    return (
        f"{budget:,}",
        claim.verdict,
        _shown(claim.ratio),
        _shown(measured.ratio),
        _shown(claim.less_real),
        _shown(measured.less_real),
        f"{measured.found:.3f}",
        f"{measured.name} {measured.stock:.3f}, of {measured.n_stock}",
        f"{seconds:.0f}",
    )


def _shown(ratio: Estimated | None) -> str:
    if ratio is None:
        return "none"
    low, high = ratio.interval
    return f"{ratio.value:.2f} ({low:.2f} to {high:.2f})"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS)
    parser.add_argument("--images", type=int, default=MEASURED, help="held out and outside")
    asked = parser.parse_args()
    main(tuple(asked.models), tuple(asked.budgets), asked.images)
