"""Schedules drawn with letters, for the terminal."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3search.schedules.schedule import Schedule
from s3search.show.pictures.comparing import SAME_LAM, Comparison, Pair
from s3search.show.pictures.words import TimeLine, headline, time_lines

_BAR_WIDTH = 16


def terminal_drawing(schedule: Schedule) -> RenderableType:
    """The schedule as a table with a bar per noise level, for the terminal."""
    lines = time_lines(schedule)
    lams = [line.lam for line in lines]
    is_plain = not any(line.network for line in lines)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "t", "sigma/alpha"):
        table.add_column(heading, justify="right")
    for heading in ("noise (log scale)", "network", "step to the next time"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        network = "●" * line.n_calls
        table.add_row(
            str(line.index),
            f"{line.t:.5g}",
            f"{line.ratio:.4g}",
            Text("█" * _bar(line.lam, lams), style="cyan"),
            network if is_plain else f"{network} {line.network}",
            line.step,
        )
    return Group(Text(headline(schedule)), table)


def comparison_drawing(
    found: Comparison, schedules: tuple[Schedule, Schedule], names: tuple[str, str]
) -> RenderableType:
    """Two schedules side by side; what is as in the first is not said again, and a row in which
    something differs starts with its sign.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for heading in ("", "t of A", "t of B", "lam of A", "lam of B"):
        table.add_column(heading, justify="right")
    for heading in ("network and step of A", "of B"):
        table.add_column(heading, overflow="fold")
    for pair in found.pairs:
        first, second = pair.lines
        table.add_row(
            "" if pair.is_same else "≠",
            str(pair.index),
            _cell(first, "t"),
            "=" if pair.same_time else _cell(second, "t"),
            _cell(first, "lam"),
            "=" if pair.same_time else _cell(second, "lam"),
            _choices(first),
            _other_choices(pair),
            style=None if pair.is_same else "bold",
        )
    heads = [
        Text(f"{letter}  {name}: {headline(schedule)}")
        for letter, name, schedule in zip("AB", names, schedules, strict=True)
    ]
    return Group(*heads, table, *map(Text, summary_lines(found, schedules)))


def summary_lines(found: Comparison, schedules: tuple[Schedule, Schedule]) -> list[str]:
    """How far the two are apart, in sentences."""
    if found.same:
        return ["the same schedule: the same images"]
    lines = []
    if found.largest is not None and found.largest < SAME_LAM:
        lines.append("times: the same curve of lam = log(alpha/sigma) over the steps")
    elif found.largest is not None and found.largest_at is not None:
        lines.append(
            f"times: at most {found.largest:.4g} apart in lam = log(alpha/sigma), "
            f"{100 * found.largest_at:.0f} % into the steps; {found.mean:.4g} on average"
        )
    n_steps = max(schedule.n_steps for schedule in schedules)
    lines.append(f"steps: {found.n_different_steps} of {n_steps} differ")
    if found.elsewhere:
        lines.append(f"also different: {', '.join(found.elsewhere)}")
    return lines


def _cell(line: TimeLine | None, name: str) -> str:
    return "" if line is None else f"{getattr(line, name):.5g}"


def _choices(line: TimeLine | None) -> str:
    if line is None:
        return ""
    calls = " ".join(part for part in ("●" * line.n_calls, line.network) if part)
    return " ".join(part for part in (calls, line.step) if part)


def _other_choices(pair: Pair) -> str:
    """Those of the second: "=" where they are the first's, the fields where words hide them."""
    first, second = pair.lines
    if pair.same_network and not pair.step_differences:
        return "="
    if first is None or second is None or _choices(first) != _choices(second):
        return _choices(second)
    return f"the same but for {', '.join(pair.step_differences)}"


def _bar(lam: float, lams: Sequence[float]) -> int:
    finite = [other for other in lams if math.isfinite(other)]
    if not math.isfinite(lam) or len(finite) < 2 or max(finite) == min(finite):
        return 0 if lam > 0 else _BAR_WIDTH
    return 1 + round((_BAR_WIDTH - 1) * (max(finite) - lam) / (max(finite) - min(finite)))
