"""A held-out comparison as text: one table, what may be claimed, and what the metric gives real
images.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3search.search.direction import Direction
from s3search.study.metric_words import MetricWords

_WIDTHS = (15, 17, 17, 10, 15)  # so that the table fits 80 columns
_WITHOUT_RATIO = (19, 21, 10, 19)
_NAMES_SHOWN = 10  # published solvers of each NFE
_FLOOR = "real images, resampled"


def comparison_table(found: dict[str, Any]) -> RenderableType:
    """The best found schedule against every published solver at its best spacing, on held-out
    noise; ``found`` is `s3search.study.results.comparison.comparison_of`, with a row at least.

    A name has a line of its own, and is never broken on a screen of 80 columns.
    """
    rows, words = found["rows"], words_of(found)
    first = rows[0]
    second = next((row["witness"]["extractor"] for row in rows if row["witness"]), None)
    ratio = ["of winner"] if words.is_minimized else []
    heads = [first["extractor"], "less winner", *ratio, "search"]
    cells = partial(_cells, _WIDTHS if words.is_minimized else _WITHOUT_RATIO)
    parts: list[RenderableType] = [
        Text(
            f"{words.title[0].upper()}{words.title[1:]} of {first['n_images']:,} images, held-out "
            f"noise (seed {first['noise_seed']}), 95 % intervals over other noise below; 'search' "
            f"is the {words.noun} of {first['search_n_images']:,} images that ranked it; "
            f"{words.which_is_better}",
            style="italic",
        ),
        cells(heads if second is None else [*heads, f"{second}\n(second)"], style="bold"),
    ]
    for nfe in sorted({row["nfe"] for row in rows}):
        parts += ["", Text(f"NFE {nfe}", style="bold")]
        for row in sorted(_shown(rows, nfe), key=partial(row_order, words.direction)):
            style = "" if row["is_baseline"] else "bold green"
            numbers = _numbers(row, second, has_ratio=words.is_minimized)
            parts += [Text(_name(row), style=style), cells(numbers, style=style)]
    of_real, of_second = real_images_of(found)
    if of_real or of_second:
        own = [of_real, *[""] * (len(heads) - 1), of_second]
        parts += [Text(_FLOOR, style="dim"), cells(own, style="dim")]
    return Group(*parts)


def comparison_lines(found: dict[str, Any]) -> Iterator[str]:
    """What may be claimed of found against published, and `remark_lines`."""
    for claim in found["claims"]:
        yield from (f"NFE {claim['nfe']}: {sentence}" for sentence in claim["says"])
    yield from remark_lines(found)


def remark_lines(found: dict[str, Any]) -> Iterator[str]:
    """What real images get, and what a person left out."""
    if any(real_images_of(found)):
        yield (
            f"{_FLOOR.capitalize()}, are as many draws of the reference images themselves: the "
            "distance's own bias at so many images, which no schedule should be expected to beat "
            "by much."
        )
    for each in found["vetoed"]:
        yield (
            f"Vetoed, and left out of all this: trial {each['trial']}, {each['name']}, schedule "
            f"{each['schedule_id'][:8]}: {each['reason'] or 'no reason was given'}."
        )


def words_of(found: Mapping[str, Any]) -> MetricWords:
    """What people read of the metric that a comparison is by."""
    return MetricWords.said_by(found)


def row_order(direction: Direction, row: dict[str, Any]) -> tuple[bool, float]:
    """The winner, which is exported, before the others, the better first."""
    return not row["is_winner"], direction.loss(row["value"])


def _shown(rows: list[dict[str, Any]], nfe: int) -> list[dict[str, Any]]:
    of_nfe = [row for row in rows if row["nfe"] == nfe]
    published = [row for row in of_nfe if row["is_baseline"]]
    named = [row for row in published[_NAMES_SHOWN:] if "Scheduler" in row["name"]]  # asked for
    found = [row for row in of_nfe if not row["is_baseline"]]
    return [*found, *published[:_NAMES_SHOWN], *named]


def _name(row: dict[str, Any]) -> str:
    return str(row["name"]) if row["is_baseline"] else f"s3search ({row['schedule_id'][:8]})"


def real_images_of(found: Mapping[str, Any]) -> tuple[str, str]:
    """What real images get by the first and by the second metric; empty where that is not
    known.
    """
    rows = found["rows"]
    second = next((row["witness"] for row in rows if row["witness"]), None)
    return _of_real(found, rows[0] if rows else None), _of_real(found, second)


def _of_real(found: Mapping[str, Any], row: Mapping[str, Any] | None) -> str:
    """What the metric of a row gives real images; nothing where that is not known."""
    wanted = None if row is None else (row.get("metric", "frechet"), row["extractor"])
    each = ((own.get("metric", "frechet"), own) for own in found["floor"])
    return next(
        (f"{own['value']:.4f}" for kind, own in each if (kind, own["extractor"]) == wanted), ""
    )


def _cells(widths: Sequence[int], cells: Sequence[str], style: str) -> Table:
    """A line of the table, below the name of what it is about."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for width in widths[: len(cells)]:
        table.add_column(width=width, justify="right", overflow="fold")
    table.add_row(*cells, style=style)
    return table


def _numbers(row: dict[str, Any], second: str | None, *, has_ratio: bool) -> list[str]:
    cells = [_with_interval(row)]
    if row["is_winner"]:
        cells.append("exported")
    else:
        cells.append(f"{row['difference']:+.4f}{_range(row['difference_95'], sign='+')}")
    if has_ratio:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
        between = _range(row["ratio_95"], decimals=2)
        cells.append("1.00x" if row["is_winner"] else ratio + between)
    cells.append(f"{row['search_value']:.4f}")
    if second is not None:
        cells.append(_with_interval(row["witness"]) if row["witness"] else "-")
    return cells


def _with_interval(measured: dict[str, Any]) -> str:
    return f"{measured['value']:.4f}{_range(measured['interval_95'])}"


def _range(interval: Any, sign: str = "", decimals: int = 3) -> str:
    """The interval on a line of its own, with more decimals if it is small, fewer if large."""
    if interval is None:
        return ""
    magnitude = math.floor(math.log10(max(*map(abs, interval), 1e-9)))
    form = f"{sign}.{max(1, max(decimals, 1 - magnitude) - max(0, magnitude))}f"
    return f"\n{interval[0]:{form}} to {interval[1]:{form}}"
