"""Searches of the digits by every kind of metric, judged on held-out noise and by a second metric.

For each metric: the found schedule against the best published solver at its best spacing, with
the paired 95 % interval of what it is better by; what the second metric, which chose nothing,
makes of the same images; and the network calls.  "better by" is found less published where the
metric is maximised and published less found elsewhere, so that more is better.

    python -m tests.benchmarks.bench_metrics [--evaluations 100] [--nfe 5] [--held-out 5000]
"""

import argparse
from collections.abc import Mapping
from typing import Any

import s3search
from s3search.run.found import SearchResult

ASKED = "tests.support.plugins:asked_digit"
SECOND = {"features": "digits", "network": "b"}
FIRST = {"features": "digits"}

METRICS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], int]] = {
    "score: log-probability of the digit asked for": ({"score": ASKED}, FIRST, 1000),
    "the same, guarded by the distance": (
        {"score": ASKED, "guard": [{**FIRST, "at_most": 1.1}]},
        SECOND,
        1000,
    ),
    "pair: psnr with the fine solve": ({"score": "psnr", "target": "fine"}, FIRST, 200),
    "kernel": ({"kind": "kernel", **FIRST}, SECOND, 1000),
    "mind": ({"kind": "mind", **FIRST}, SECOND, 1000),
    "cmmd": ({"kind": "cmmd", **FIRST}, SECOND, 1000),
    "frechet": (FIRST, SECOND, 1000),
}


def main() -> None:
    """Prints a row for each metric."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--held-out", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print("| metric | found | best published | better by | verdict | second metric | calls |")
    print("|---|---|---|---|---|---|---|")
    for name, (metric, second, n_images) in METRICS.items():
        found = s3search.search(
            "digits",
            reference="digits",
            metric=metric,
            validation_metric=second,
            nfe=asked.nfe,
            evaluations=asked.evaluations,
            n_images=n_images,
            seed=asked.seed,
            validation={"n_images": asked.held_out},
            progress=False,
        )
        print(f"| {name}, {n_images} images | {_row(found)} |", flush=True)


def _row(found: SearchResult) -> str:
    (against,) = found.comparison["against_published"]
    rows = {row["schedule_id"]: row for row in found.comparison["rows"]}
    best = next(row for row in found.comparison["rows"] if row["name"] == against["published"])
    own, sign = rows[against["found"]], 1.0
    if found.comparison["direction"] == "maximize":
        sign = -1.0
    ends = sorted(sign * end for end in against["difference_95"])
    by = f"{sign * against['difference']:+.4f} ({ends[0]:+.4f} to {ends[1]:+.4f})"
    second = against["witness"]
    return " | ".join(
        [
            f"{own['value']:.4f}",
            f"{best['value']:.4f} ({against['published']})",
            by,
            against["verdict"],
            f"{second['extractor']}: {second['verdict']}",
            f"{found.status['network_calls'] / 1e6:.2f} M",
        ]
    )


if __name__ == "__main__":
    main()
