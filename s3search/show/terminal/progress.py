"""The progress of a search: a bar and a table that change in place, or plain lines."""

import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from s3search.search.stages import stage_after, stage_words
from s3search.show.terminal.escaping import SafeConsole
from s3search.show.terminal.forecast import forecast_lines
from s3search.show.terminal.gains import gain_words
from s3search.show.terminal.numbers import duration, number
from s3search.study.metric_words import MetricWords
from s3search.study.results.forecast import CostForecast
from s3search.study.results.progress import Progress, Report

_PLAIN_SECONDS = 10.0
_BAR_WIDTH = 40
_STARTING = "loading the model, and starting what makes the images"


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """A bar and a table on a terminal and in a notebook; elsewhere a plain line now and then."""
    if not console.is_terminal and not (console.is_jupyter and _has_widgets()):
        yield _Shown(console, _plain_lines(console))
        return
    start = Spinner("dots", Text(_STARTING))
    with Live(start, console=console, refresh_per_second=4, transient=True) as live:
        yield _Shown(console, lambda now: live.update(progress_table(now)))


class _Shown:
    """A report of stages as people see them, which first prints what the study will cost."""

    def __init__(self, console: Console, report: Report) -> None:
        self._console, self._report, self._in_words = console, report, in_words()

    def __call__(self, now: Progress) -> None:
        self._report(self._in_words(now))

    def begins(self, forecast: CostForecast) -> None:
        """Prints the forecast, above what changes in place."""
        for line in forecast_lines(forecast):
            self._console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def shown(wanted: bool | Report | None) -> Iterator[Report]:
    """What a call from Python reports to: the caller's own function, this terminal or notebook, or
    nobody; None: these if somebody looks.
    """
    if wanted is not None and not isinstance(wanted, bool):
        yield wanted
        return
    console = SafeConsole(stderr=True)
    if wanted or (wanted is None and (console.is_terminal or console.is_jupyter)):
        with progress(console) as report:
            yield report
    else:
        yield lambda _: None


def _has_widgets() -> bool:
    """Whether a notebook can change what it shows; rich does that with ipywidgets."""
    return importlib.util.find_spec("ipywidgets") is not None


def in_words() -> Callable[[Progress], Progress]:
    """Keeps the stage that a person sees, while answers of many kinds come in."""
    stage = ""

    def seen(now: Progress) -> Progress:
        nonlocal stage
        stage = stage_after(stage, now.stage)
        return replace(now, stage=stage)

    return seen


def _plain_lines(console: Console) -> Report:
    last: dict[str, float] = {}
    warned: set[str] = set()

    def report(now: Progress) -> None:
        for warning in now.warnings:
            if warning not in warned:
                warned.add(warning)
                console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
        is_end = now.total is not None and now.done >= now.total
        if now.stage not in last:
            words = stage_words(now.stage)
            console.print(f"{words.title}: {_about(now)}", highlight=False, soft_wrap=True)
        if is_end or time.monotonic() - last.get(now.stage, -_PLAIN_SECONDS) >= _PLAIN_SECONDS:
            last[now.stage] = time.monotonic()
            console.print(progress_line(now), highlight=False, soft_wrap=True)

    return report


def progress_line(now: Progress) -> str:
    """All of it on one line."""
    parts = [f"{stage_words(now.stage).title}: {', '.join(_how_far(now))}"]
    gains = {each["nfe"]: each for each in now.gains}
    for nfe in _numbers_of_calls(now):
        found, baseline = now.best.get(nfe), now.best_baseline.get(nfe)
        text = f"NFE {nfe}: best so far {number(found)}"
        if nfe in now.today:
            today = now.today[nfe]
            text += f", today {number(today.value)} ({today.name})"
        text += f", published {number(baseline)}"
        if nfe in now.held_out or nfe in now.held_out_baseline:
            held_out = now.held_out.get(nfe), now.held_out_baseline.get(nfe)
            text += f", on unseen noise {number(held_out[0])} (published {number(held_out[1])})"
        if nfe in gains:
            text += f", gained by {gain_words(gains[nfe])}"
        parts.append(text)
    parts += _pace(now)
    return "  |  ".join(parts)


def progress_table(now: Progress, study: str = "") -> RenderableType:
    """A bar over everything, what goes on now, and a row for each NFE."""
    words = stage_words(now.stage)
    bar = Table.grid(padding=(0, 2, 0, 0))
    whole = ProgressBar(
        total=1.0, completed=now.whole or 0.0, width=_BAR_WIDTH, pulse=now.whole is None
    )
    bar.add_row(whole, ", ".join(_how_far(now)))
    name = f"{study}: " if study else ""
    about = _about(now)
    title = Text.assemble((f"{name}{words.title}", "bold"), about and f": {about}")
    paces = Text(", ".join(_pace(now)), style="dim")
    warnings = [Text(f"warning: {each}", style="yellow") for each in now.warnings]
    return Group(title, bar, paces, *_bests(now), *warnings)


def _bests(now: Progress) -> Iterator[RenderableType]:
    """What was found beside what runs today and what is published, and what that is."""
    calls = _numbers_of_calls(now)
    if not calls:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ["NFE", "best so far", *(["today", "better"] if now.today else []), "published"]
    is_checked = bool(now.held_out or now.held_out_baseline)
    headings += ["on unseen noise", "published"] if is_checked else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for nfe in calls:
        best, today = now.best.get(nfe), now.today.get(nfe)
        cells = [number(best)]
        if now.today:
            before = today.value if today else None
            cells += [number(before), _better(best, before, now.words)]
        cells.append(number(now.best_baseline.get(nfe)))
        if is_checked:
            cells += [number(now.held_out.get(nfe)), number(now.held_out_baseline.get(nfe))]
        table.add_row(str(nfe), *cells)
    yield table
    names = dict.fromkeys(each.name for each in now.today.values())
    said = f"{now.words.noun}s, {now.words.which_is_better}"
    yield Text(f"today: {', '.join(names)}; {said}" if names else said, style="dim")


def _better(best: float | None, before: float | None, words: MetricWords) -> str:
    """How many times lower the best is than what runs today; of what is maximised, how much
    higher.
    """
    if best is None or before is None:
        return "-"
    if not words.is_minimized:
        return f"{best - before:+.4f}"
    return f"{before / best:.2f}x" if best > 0.0 else "-"


def _about(now: Progress) -> str:
    """What goes on now; what the search calls a distance is named as the metric's values are."""
    return stage_words(now.stage).about.replace("distance", now.words.noun)


def _numbers_of_calls(now: Progress) -> list[int]:
    return sorted({*now.best, *now.best_baseline, *now.held_out, *now.held_out_baseline})


def _how_far(now: Progress) -> list[str]:
    """Per cent and time left of everything, the validation too."""
    parts = [] if now.whole is None else [f"{math.floor(100 * now.whole)} %"]
    if now.seconds_left is not None and now.whole != 1.0:
        parts.append(f"about {duration(now.seconds_left)} left")
    return parts or [f"{now.measured:,} schedules measured"]


def _pace(now: Progress) -> list[str]:
    parts = []
    if now.workers:
        parts.append(f"{now.workers_busy} of {now.workers} workers busy")
    parts.append(f"{now.measured:,} schedules measured")
    if now.stage == "validation":
        of = "" if now.total is None else f" of {now.total}"
        parts.append(f"{now.done}{of} checked")
    if now.failed:
        parts.append(f"{now.failed} failed")
    if now.images_per_second:
        parts.append(f"{now.images_per_second:,.0f} images/s")
    return parts
