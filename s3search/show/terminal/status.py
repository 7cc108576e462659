"""How far studies are, in lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3search.search.stages import stage_words
from s3search.show.terminal.gains import gain_lines
from s3search.show.terminal.numbers import number, spent_words
from s3search.show.terminal.rungs import rung_lines
from s3search.study.metric_words import FRECHET, MetricWords


def status_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How far each study is and what it cost, a line per NFE, and what each rung was worth."""
    if not rows:
        yield "no study yet; `s3search demo` makes one"
    for row in rows:
        yield (
            f"{row['study']}: {row['state']}, {measured_words(row)}, {row['failed']} failed, "
            f"{row['pending']} in flight, {row['validated']} validated; "
            f"{row['network_calls']:,} network calls, {row['worker_seconds']:.0f} worker seconds"
        )
        words = MetricWords.said_by(row)
        if words != FRECHET:
            yield f"  by the {words.title}, {words.which_is_better}"
        for nfe, best in row["best"].items():
            yield (
                f"  NFE {nfe}: best found {number(best['search'])} "
                f"(published {number(best['search_baseline'])}); on held-out noise "
                f"{number(best['held_out'])} (published {number(best['held_out_baseline'])})"
            )
        for veto in row["vetoed"]:
            reason = veto["reason"] or "no reason was given"
            yield f"  vetoed: trial {veto['trial']}, schedule {veto['schedule_id'][:8]}: {reason}"
        yield from (f"  {line}" for line in rung_lines(row.get("parts", ())))
        yield from _ledger_lines(row["ledger"])
        yield from _ladder_lines(row["ladder"])
        yield from (f"  {line}" for line in gain_lines(row["gains"]))


def measured_words(row: Mapping[str, Any]) -> str:
    """How much of its budget a study has spent, and on how many schedules."""
    share = row["budget_share"]
    spent = "" if share is None else f"{spent_words(share, row['budget_words'])}; "
    published = row["baselines"]
    return f"{spent}{row['measured']:,} schedules measured, {published:,} of them published"


def _ledger_lines(ledger: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What each rung and each kind of job cost, the dearest first."""
    if not ledger:
        return
    yield "  spent on:"
    yield "  " + _ledger_line(("", "count", "network calls", "worker seconds"))
    for name, cost in sorted(ledger.items(), key=lambda item: -item[1]["seconds"]):
        cells = (f"{cost['count']:,}", f"{cost['network_calls']:,}", f"{cost['seconds']:,.1f}")
        rung = "measured" if name == "search" else name  # published ones among them
        yield "  " + _ledger_line((stage_words(rung).title, *cells))


def _ledger_line(cells: Sequence[str]) -> str:
    name, count, calls, seconds = cells
    return f"  {name:<32}{count:>8}{calls:>16}{seconds:>17}"


def _ladder_lines(rungs: list[dict[str, Any]]) -> Iterator[str]:
    """Cost and worth of each rung; correlations are Spearman's, in brackets those inside the best
    quarter.
    """
    if not rungs:
        return
    yield "  rank correlation of each rung with the next (inside the best quarter; schedules):"
    heads = ("NFE", "rung", "images", "seconds", "next", "measured first", "all")
    yield "  " + _ladder_line(heads)
    for rung in rungs:
        cells = (
            str(rung["nfe"]),
            rung["rung"],
            f"{rung['images']:.0f}",
            "-" if rung["seconds"] is None else f"{rung['seconds']:.2g}",
            rung["next"] or "-",
            _correlations(rung["seeds"]),
            _correlations(rung["end"]) + ("" if rung["used"] else ", left out"),
        )
        yield "  " + _ladder_line(cells)


def _ladder_line(cells: Sequence[str]) -> str:
    nfe, rung, images, seconds, following, first, end = cells
    costs = f"{nfe:>3}  {rung:<11}{images:>7}{seconds:>9}"
    return f"{costs}  {following:<11}{first:<22}{end}".rstrip()


def _correlations(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    both = [found["correlation"], found["top_correlation"]]
    whole, top = ("-" if value is None else f"{value:.2f}" for value in both)
    return f"{whole} ({top}; {found['n']})"
