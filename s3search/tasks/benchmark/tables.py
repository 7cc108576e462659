"""The benchmark as a table in Markdown, and the line of each measurement while it runs."""

from collections.abc import Sequence

from s3search.tasks.benchmark.results import Row, Summary
from s3search.tasks.benchmark.running import Made

_HEAD = (
    "| method | budget | network calls | held-out distance: median (range) "
    "| ratio | less bias | driver |\n|---|---:|---:|---:|---:|---:|---:|"
)


def markdown(found: Sequence[Summary], rows: Sequence[Row]) -> str:
    """A table for each number of calls; what is counted stands above it."""
    images = sorted({row.n_images for row in rows})
    held_out = sorted({row.held_out_images for row in rows})
    parts = [
        f"Fréchet distance of {_listed(held_out)} images on held-out noise, median and range over "
        f"seeds. A budget is so many measurements of {_listed(images)} images; network calls are "
        "image-calls, everything that the search did but the held-out measurement. *Ratio* is "
        "the distance of the best published solver by that of the method, at so many images; "
        "*less bias* is the ratio of what is left without the distance of as many real images; "
        "*driver* is its share of the wall time, with the one worker in the same process."
    ]
    for nfe in sorted({each.nfe for each in found}):
        lines = [_line(each) for each in found if each.nfe == nfe]
        parts.append("\n".join([f"## NFE {nfe}", "", _HEAD, *lines]))
    return "\n\n".join(parts) + "\n"


def progress_line(made: Made) -> str:
    """One measurement for the terminal."""
    row = made.row
    budget = "" if row.budget is None else f", budget {row.budget}"
    value = "nothing found" if row.held_out is None else f"{row.held_out:.4f}"
    took = f"{row.wall_seconds:.0f} s" if made.is_new else "done before"
    return (
        f"[{made.number}/{made.total}] NFE {row.nfe}, seed {row.seed}, {row.method}{budget}: "
        f"{value} on held-out noise, {millions(row.network_calls)} network calls, {took}"
    )


def millions(calls: float) -> str:
    """A number of network calls for people: ``0.45 M``."""
    return f"{calls / 1e6:.2f} M" if calls >= 1e5 else f"{calls / 1e3:.1f} k"


def _line(each: Summary) -> str:
    cells = (
        each.method,
        "" if each.budget is None else f"{each.budget}",
        millions(each.network_calls),
        _distance(each),
        *(_ratio(each, value) for value in (each.gain, each.gain_less_bias)),
        "" if each.driver_share is None else f"{each.driver_share:.0%}",
    )
    return "| " + " | ".join(cells) + " |"


def _ratio(each: Summary, value: float | None) -> str:
    return "" if value is None or each.is_published else f"{value:.2f}"


def _distance(each: Summary) -> str:
    if each.held_out is None:
        return "nothing found"
    text = f"{each.held_out:.4f}"
    if each.n_found > 1:
        text += f" ({each.lowest:.4f} to {each.highest:.4f})"
    if each.n_found < each.n_seeds:
        text += f", {each.n_found} of {each.n_seeds} seeds"
    elif each.n_seeds == 1:
        text += " (1 seed)"
    return text


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)
