"""What held where, as text."""

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from s3search.study.metric_words import MetricWords

_DIFFERENCE = ("less", "difference", 4)  # heading, key and digits of what is maximised
_STYLES = {"holds": "bold green", "fails": "red", "undecided": ""}


def robustness_table(found: dict[str, Any]) -> Table:
    """A row per variant and schedule; ``found`` is `s3search.tasks.robustness.robustness`."""
    rows = found["rows"]
    words = MetricWords.said_by(rows[0])
    versus = "the ratio is to" if words.is_minimized else "'less' is less"
    table = Table(
        title=f"{words.title[0].upper()}{words.title[1:]} of {found['n_images']:,} images "
        f"{words.by} {rows[0]['extractor']}, the "
        f"same noise in a variant, 95 % intervals over other noise below; {versus} the best "
        "published solver there",
        title_justify="left",
        box=box.SIMPLE,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("variant", "schedule"):
        table.add_column(heading, overflow="fold")
    apart, key, decimals = ("ratio", "ratio", 2) if words.is_minimized else _DIFFERENCE
    for heading in ("NFE", words.noun, "published", apart, ""):
        table.add_column(heading, justify="right", overflow="fold")
    seeds = {row["noise_seed"] for row in rows}
    for row in rows:
        label = row["variant"] + (f"\nseed {row['noise_seed']}" if len(seeds) > 1 else "")
        own = "failed" if row["value"] is None else _number(row["value"], row["interval_95"])
        published = row["published"]
        between = "-" if row[key] is None else _number(row[key], row[f"{key}_95"], decimals)
        table.add_row(
            label,
            row["schedule"],
            str(row["nfe"]),
            own,
            _number(published["value"], published["interval_95"]),
            between,
            row["verdict"],
            style=_STYLES[row["verdict"]],
        )
    return table


def robustness_lines(found: dict[str, Any]) -> Iterator[str]:
    """Which published solver it was, and for each schedule where it held."""
    rows = found["rows"]
    seen = set()
    for row in rows:
        key = (row["variant"], row["noise_seed"], row["nfe"])
        if key in seen:
            continue
        seen.add(key)
        published = row["published"]
        yield (
            f"{row['variant']}, seed {row['noise_seed']}, NFE {row['nfe']}: best published of "
            f"{published['n_tried']} is {published['name']}"
        )
    for each in found["held"]:
        worst = each["worst_ratio"]
        yield (
            f"{each['schedule']}: holds in {each['holds']} of {each['n_variants']} variants, "
            f"fails in {each['fails']}, undecided in {each['undecided']}"
            + ("" if worst is None else f"; worst ratio {worst:.2f}")
        )
    for row in rows:
        if row["error"] is not None:
            yield f"{row['schedule']}, {row['variant']}: {row['error']}"
    if any(row["guides_itself"] for row in rows):
        names = sorted({row["schedule"] for row in rows if row["guides_itself"]})
        yield (
            f"{', '.join(names)}: guides every call itself; another model.guidance_scale changes "
            "the published solvers alone"
        )


def _number(value: float, interval: Any, decimals: int = 4) -> str:
    shown = f"{value:.{decimals}f}"
    if interval is None:
        return shown
    return f"{shown}\n{interval[0]:.{decimals}f} to {interval[1]:.{decimals}f}"
