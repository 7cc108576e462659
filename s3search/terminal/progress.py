"""The progress of a search: a live table, or plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from s3search.driver import Progress, Report
from s3search.terminal.numbers import duration, number

_PLAIN_SECONDS = 10.0


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """A live table on a terminal; elsewhere a plain line now and then."""
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda now: live.update(_progress_table(now))


def _plain_lines(console: Console) -> Report:
    last: dict[str, float] = {}

    def report(now: Progress) -> None:
        is_end = now.total is not None and now.done >= now.total
        if is_end or time.monotonic() - last.get(now.stage, -_PLAIN_SECONDS) >= _PLAIN_SECONDS:
            last[now.stage] = time.monotonic()
            console.print(_progress_line(now), highlight=False, soft_wrap=True)

    return report


def _progress_line(now: Progress) -> str:
    parts = [f"{now.stage}: {_count(now)}"]
    for nfe in sorted({*now.best, *now.best_baseline}):
        found, baseline = number(now.best.get(nfe)), number(now.best_baseline.get(nfe))
        parts.append(f"NFE {nfe}: best found {found}, best baseline {baseline}")
    parts.append(f"{now.images_per_second:,.0f} images/s")
    if now.seconds_left is not None:
        parts.append(f"{duration(now.seconds_left)} left")
    if now.failed:
        parts.append(f"{now.failed} failed")
    return "  |  ".join(parts)


def _progress_table(now: Progress) -> Table:
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    failed = f", {now.failed} failed" if now.failed else ""
    title = f"{now.stage}: {_count(now)}, {now.images_per_second:,.0f} images/s{left}{failed}"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("NFE", "best found", "best baseline", "ratio"):
        table.add_column(heading, justify="right")
    for nfe in sorted({*now.best, *now.best_baseline}):
        found, baseline = now.best.get(nfe), now.best_baseline.get(nfe)
        ratio = "" if found is None or baseline is None else f"{baseline / found:.2f}x"
        table.add_row(str(nfe), number(found), number(baseline), ratio)
    return table


def _count(now: Progress) -> str:
    return (
        f"{now.done} evaluations" if now.total is None else f"{now.done}/{now.total} evaluations"
    )
