"""How far a search gets beyond the best tuned published solver, on models that it was not made on.

    python -m tests.benchmarks.zoo FOLDER                                  # trains them, once
    python -m tests.benchmarks.bench_zoo FOLDER --model crops --nfe 5 8 --seed 0 1 2
    python -m tests.benchmarks.bench_zoo FOLDER --model crops --view flow  # the same network
    python -m tests.benchmarks.emoji FOLDER                                # a U-Net of 32x32
    python -m tests.benchmarks.bench_zoo FOLDER --model emoji --features 2048 --algorithm s3 usf

Every search prints one JSON line as soon as it is done, appended to ``--output`` too; a search
that is in that file already is not made again.  ``--table`` prints the medians of the file.
Held-out: noise and images that the search never saw, the model's own 64 features.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

import s3search
from s3search.models.views import seen_as
from s3search.processes import NoiseProcess, edm, flow, vp_discrete
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from tests.benchmarks.zoo import ZOO, Member, load

VIEWS: Mapping[str, Callable[[], NoiseProcess]] = {
    "edm": edm,
    "vp_discrete": vp_discrete,
    "flow": flow,
}
_ASKED = ("model", "view", "nfe", "evaluations", "n_images", "seed", "features", "algorithm")
_BEFORE = {"features": 64, "algorithm": "s3"}  # of rows written before there was a choice


def searched(given: argparse.Namespace, asked: Mapping[str, Any]) -> dict[str, Any]:
    """One search, and what came of it on held-out noise."""
    member = load(given.folder, asked["model"], asked["features"]).on(given.device)
    view = asked["view"]
    model = member.denoiser if view == "own" else seen_as(member.denoiser, VIEWS[view]())
    began = time.perf_counter()
    found = s3search.search(
        model,
        reference=member.images,
        features=_without_gradient(member.features) if given.no_gradient else member.features,
        nfe=asked["nfe"],
        evaluations=asked["evaluations"],
        n_images=asked["n_images"],
        seed=asked["seed"],
        algorithm=asked["algorithm"],
        validation={"n_images": given.held_out} if given.held_out else None,
        progress=False,
    )
    table = found.table
    published = table[table["is_baseline"]]
    best = published.loc[published["distance"].idxmin()]
    winner = table[table["is_winner"]].iloc[0]
    status = found.status
    searching = {k: v for k, v in status["ledger"].items() if k != "validation"}
    seconds = {k: v["seconds"] for k, v in searching.items()}
    proxies = sum(seconds.get(name, 0.0) for name in ("gaussian", "mixture"))
    return {
        **{key: asked[key] for key in _ASKED},
        "published": float(best["distance"]),
        "by": str(best["name"]),
        "found": float(winner["distance"]),
        "interval": [float(winner["low"]), float(winner["high"])],
        "gain": float(best["distance"] / winner["distance"]),
        "network_calls": sum(v["network_calls"] for v in searching.values()),
        "proxies": round(proxies / sum(seconds.values()), 4),  # of the search's worker seconds
        "gains": status.get("gains"),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _without_gradient(features: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    @torch.inference_mode()
    def seen(images: torch.Tensor) -> torch.Tensor:
        return features(images)

    return seen


def solved(folder: Path, name: str, nfe: int) -> float:
    """The distance of 10,000 images of a solve with many calls."""
    member = load(folder, name)
    given = {"reference": member.images, "features": member.features}
    return s3search.evaluate(_plain(member, nfe), member.denoiser, **given).value


def network_share(member: Member, nfe: int, n_images: int) -> float:
    """The network's part of the seconds of an evaluation, its interval included."""
    spent = 0.0
    began = 0.0

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def begin(*_: Any) -> None:
        nonlocal began
        began = now()

    def end(*_: Any) -> None:
        nonlocal spent
        spent += now() - began

    hooks = [
        member.denoiser.register_forward_pre_hook(begin),
        member.denoiser.register_forward_hook(end),
    ]
    given = {"reference": member.images, "features": member.features, "n_images": n_images}
    found = s3search.evaluate(_plain(member, nfe), member.denoiser, **given)
    for hook in hooks:
        hook.remove()
    return spent / found.measurement.seconds


def _plain(member: Member, nfe: int) -> Schedule:
    """DPM-Solver++(2M) to the clean image."""
    end = published.End(rule=published.EndRule.DENOISE)
    return published.dpmpp_2m(member.denoiser.process, nfe=nfe, end=end)


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Medians over seeds for everything that was asked, and their geometric mean over models."""
    lines = [
        "| model | NFE | calls | best published | found | gain | proxies |",
        "|---|---|---|---|---|---|---|",
    ]
    grouped: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((_named(row), row["nfe"], row["evaluations"]), []).append(row)
    for (name, nfe, _), own in sorted(grouped.items()):
        published, found, gain, calls, proxies = (
            statistics.median(r[key] for r in own)
            for key in ("published", "found", "gain", "network_calls", "proxies")
        )
        lines.append(
            f"| {name} | {nfe} | {calls / 1e6:.2f} M | {published:.3f} | {found:.3f} "
            f"| {gain:.2f} ({len(own)}) | {100 * proxies:.0f} % |"
        )
    own = [r for r in rows if r["view"] == "own" and r["model"] in ZOO]
    for nfe, evaluations in sorted({(r["nfe"], r["evaluations"]) for r in own}):
        asked = [r for r in own if (r["nfe"], r["evaluations"]) == (nfe, evaluations)]
        mean = math.exp(statistics.fmean(math.log(r["gain"]) for r in asked))
        calls = f"{nfe * evaluations * asked[0]['n_images'] / 1e6:.2g} M asked"
        lines.append(f"| geometric mean ({len(asked)}) | {nfe} | {calls} | | | {mean:.2f} | |")
    return "\n".join(lines)


def _named(row: Mapping[str, Any]) -> str:
    """The model, and what of it is not the usual."""
    view = "" if row["view"] == "own" else f" as {row['view']}"
    features = "" if row["features"] == 64 else f", {row['features']:,} features"
    algorithm = "" if row["algorithm"] == "s3" else f", {row['algorithm']}"
    return f"{row['model']}{view}{features}{algorithm}"


def main() -> None:
    """Searches what is asked for and not yet in the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    models = [*ZOO, "digits", "emoji"]
    parser.add_argument("--model", nargs="+", default=list(ZOO), choices=models)
    parser.add_argument("--view", nargs="+", default=["own"], choices=["own", *VIEWS])
    parser.add_argument("--nfe", nargs="+", type=int, default=[5])
    parser.add_argument("--evaluations", nargs="+", type=int, default=[100])
    parser.add_argument("--images", nargs="+", type=int, default=[1000])
    parser.add_argument("--held-out", type=int, help="images; by default as a search chooses")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--features", nargs="+", type=int, default=[64], help="2048: of emoji")
    parser.add_argument("--algorithm", nargs="+", default=["s3"])
    parser.add_argument("--output", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-gradient", action="store_true", help="another --output, then")
    parser.add_argument("--solve", type=int, metavar="NFE", help="DPM-Solver++(2M) instead")
    parser.add_argument("--share", action="store_true", help="the network's, of --images, instead")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines = asked.output.read_text().splitlines() if asked.output.exists() else []
    rows = [{**_BEFORE, **json.loads(line)} for line in lines]
    if asked.table:
        print(table_of(rows))
    elif asked.solve:
        for name in asked.model:
            print(f"{name}: {solved(asked.folder, name, asked.solve):.3f}", flush=True)
    elif asked.share:
        for name, n, nfe, images in product(asked.model, asked.features, asked.nfe, asked.images):
            member = load(asked.folder, name, n).on(asked.device)
            share = network_share(member, nfe, images)
            print(f"{name}, {n:,} features, NFE {nfe}, {images:,} images: {100 * share:.1f} %")
    else:
        search_all(asked, done={tuple(row[key] for key in _ASKED) for row in rows})


def search_all(asked: argparse.Namespace, done: Collection[tuple[Any, ...]]) -> None:
    """Every search that is asked for and not done."""
    columns = (asked.seed, asked.algorithm, asked.features, asked.evaluations, asked.images)
    for seed, algorithm, features, evaluations, images in product(*columns):
        for nfe, model, view in product(asked.nfe, asked.model, asked.view):
            wanted = (model, view, nfe, evaluations, images, seed, features, algorithm)
            if wanted in done:
                continue
            row = searched(asked, dict(zip(_ASKED, wanted, strict=True)))
            with asked.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps({k: v for k, v in row.items() if k != "gains"}), flush=True)


if __name__ == "__main__":
    main()
