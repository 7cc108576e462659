"""The end of a launch: what came of it, where it is, and what to type next."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from s3search.search.direction import Direction
from s3search.search.trial import OriginKind
from s3search.study.metric_words import MetricWords

_VERDICTS = {
    "beats": "better than every published sampler measured, {} the best of them",
    "loses": "a published sampler is better, {}",
    "undecided": "as good as the best published sampler, {}, as far as noise lets one tell",
    "not covered": "{better} than {}, but too few published samplers were measured for more",
}


def verdict_lines(found: dict[str, Any]) -> Iterator[str]:
    """A verdict for each number of calls, and how it stands to what runs today; ``found`` is
    `s3search.study.results.comparison.comparison_of`.
    """
    published = {each["nfe"]: each["published"] for each in found["against_published"]}
    metric = MetricWords.said_by(found)
    direction = metric.direction
    for claim in found["claims"]:
        nfe = claim["nfe"]
        words = claim["says"][0]
        if nfe in published:
            words = _VERDICTS[claim["verdict"]].format(published[nfe], better=metric.better)
        yield f"verdict for {nfe} calls: {words}"
        rows = [row for row in found["rows"] if row["nfe"] == nfe]
        today = _today(rows, direction)
        best = next((row for row in rows if not row["is_baseline"]), None)
        if today is None or best is None:
            continue
        yield (
            f"  against what runs today, {today['name']}: {best['value']:.4f} to its "
            f"{today['value']:.4f}{_better_by(today, best, direction)}"
        )


def next_lines(where: str, command: Sequence[str], *, is_default: bool) -> Iterator[str]:
    """Where everything is, and the next command; ``where`` has no password."""
    storage = [] if is_default else ["--storage", where]
    yield f"all that was measured is in {where}"
    yield f"next: {shlex.join(['s3search', *command, *storage])}"


def _today(rows: list[dict[str, Any]], direction: Direction) -> dict[str, Any] | None:
    """The row of the pipeline's own sampler, else of the best of the libraries' as they are."""
    own, library = OriginKind.PIPELINE.value, OriginKind.STOCK.value
    stock = [row for row in rows if row["origin"] in (own, library)]
    return min(
        stock,
        key=lambda row: (row["origin"] != own, direction.loss(row["value"])),
        default=None,
    )


def _better_by(today: dict[str, Any], best: dict[str, Any], direction: Direction) -> str:
    """How many times lower it is, or how much higher where more is better; with an interval where
    that is known, of the winner.
    """
    if not direction.is_better(best["value"], today["value"]):
        return ""
    if direction is Direction.MAXIMIZE:
        apart = today["difference_95"] if best["is_winner"] else None
        interval = f" (95 % {-apart[1]:.4f} to {-apart[0]:.4f})" if apart else ""
        return f", {best['value'] - today['value']:.4f} higher{interval}"
    if best["value"] <= 0.0:
        return ""
    between = today["ratio_95"] if best["is_winner"] else None
    interval = f" (95 % {between[0]:.2f} to {between[1]:.2f})" if between else ""
    return f", {today['value'] / best['value']:.2f} times lower{interval}"
