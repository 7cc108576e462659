"""The progress of a search: a bar and a table that change in place, or plain lines."""

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from s3search.show.terminal.escaping import SafeConsole
from s3search.show.terminal.forecast import forecast_lines
from s3search.show.terminal.gains import gain_words
from s3search.show.terminal.numbers import duration, number, spent_words
from s3search.study.results.forecast import CostForecast
from s3search.study.results.progress import Progress, Quality, Report

_PLAIN_SECONDS = 10.0
_BAR_WIDTH = 60


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """A bar and a table on a terminal and in a notebook; elsewhere a plain line now and then."""
    if not console.is_terminal and not (console.is_jupyter and _has_widgets()):
        yield _Shown(console, _plain_lines(console))
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield _Shown(console, lambda now: live.update(Group(_bar(now), progress_table(now))))


class _Shown:
    """A report that first prints what the study will cost."""

    def __init__(self, console: Console, report: Report) -> None:
        self._console, self._report = console, report

    def __call__(self, now: Progress) -> None:
        self._report(now)

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


def _bar(now: Progress) -> RenderableType:
    """How much of the stage is done; a pulse where nobody knows."""
    share = _share(now)
    return ProgressBar(total=1.0, completed=share or 0.0, width=_BAR_WIDTH, pulse=share is None)


def _plain_lines(console: Console) -> Report:
    last: dict[str, float] = {}
    warned: set[str] = set()

    def report(now: Progress) -> None:
        for warning in now.warnings:
            if warning not in warned:
                warned.add(warning)
                console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
        is_end = now.total is not None and now.done >= now.total
        if is_end or time.monotonic() - last.get(now.stage, -_PLAIN_SECONDS) >= _PLAIN_SECONDS:
            last[now.stage] = time.monotonic()
            console.print(progress_line(now), highlight=False, soft_wrap=True)

    return report


def progress_line(now: Progress) -> str:
    """All of it on one line."""
    parts = [f"{now.stage}: {_count(now)}"]
    gains = {each["nfe"]: each for each in now.gains}
    for nfe in _numbers_of_calls(now):
        found, baseline = now.best.get(nfe), now.best_baseline.get(nfe)
        text = f"NFE {nfe}: best found {number(found)}, best baseline {number(baseline)}"
        if nfe in now.held_out or nfe in now.held_out_baseline:
            held_out = now.held_out.get(nfe), now.held_out_baseline.get(nfe)
            text += f", held-out {number(held_out[0])} (baseline {number(held_out[1])})"
        if nfe in now.predictor:
            text += f", predictor {_quality(now.predictor[nfe])}"
        if nfe in gains:
            text += f", gained by {gain_words(gains[nfe])}"
        parts.append(text)
    parts += [*_pace(now), _cost(now)]
    return "  |  ".join(parts)


def progress_table(now: Progress, study: str = "") -> RenderableType:
    """A row for each NFE, above it how far and how fast, below it what was spent on what."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ["NFE", "best found", "baseline"]
    calls = _numbers_of_calls(now)
    columns = [_pairs(calls, now.best, now.best_baseline)]
    if now.held_out or now.held_out_baseline:
        headings += ["held-out", "baseline"]
        columns.append(_pairs(calls, now.held_out, now.held_out_baseline))
    if now.predictor:
        headings.append("predictor")
        columns.append({nfe: [_quality(own)] for nfe, own in now.predictor.items()})
    for heading in headings:
        table.add_column(heading, justify="right")
    for nfe in calls:
        cells = [cell for column in columns for cell in column.get(nfe, [])]
        table.add_row(str(nfe), *cells)
    name = f"{study}: " if study else ""
    title = f"{name}{', '.join((f'{now.stage}: {_count(now)}', *_pace(now)))}"
    rungs = sorted(now.spend.items(), key=lambda each: -each[1].seconds)
    details = "; ".join(
        f"{rung} {spend.count:,}x, {spend.network_calls:,} calls, {spend.seconds:,.0f} s"
        for rung, spend in rungs
    )
    warnings = [Text(f"warning: {each}", style="yellow") for each in now.warnings]
    costs = Text(_cost(now)), Text(details, style="dim")
    return Group(Text(title, style="italic"), table, *costs, *warnings)


def _numbers_of_calls(now: Progress) -> list[int]:
    return sorted({*now.best, *now.best_baseline, *now.held_out, *now.held_out_baseline})


def _pairs(
    calls: Sequence[int], found: Mapping[int, float], baselines: Mapping[int, float]
) -> dict[int, list[str]]:
    """Found and baseline."""
    return {nfe: [number(found.get(nfe)), number(baselines.get(nfe))] for nfe in calls}


def _quality(quality: Quality) -> str:
    """Spearman's correlation in the last batch that the predictor chose."""
    text = "-" if quality.correlation is None else f"{quality.correlation:.2f}"
    return f"{text} (of {quality.n})"


def _pace(now: Progress) -> list[str]:
    parts = []
    if now.images_per_second:
        parts.append(f"{now.images_per_second:,.0f} images/s")
    if now.seconds_left is not None:
        parts.append(f"about {duration(now.seconds_left)} left")
    if now.workers:
        parts.append(f"{now.workers_busy} of {now.workers} workers busy")
    if now.failed:
        parts.append(f"{now.failed} failed")
    return parts


def _cost(now: Progress) -> str:
    return f"{now.network_calls:,} network calls, {now.worker_seconds:,.0f} worker seconds"


def _count(now: Progress) -> str:
    """How much of the budget is spent, in the search; how much of the validation is done."""
    if now.stage == "validation":
        of = "" if now.total is None else f" of {now.total}"
        return f"{now.done}{of} schedules"
    measured = f"{now.measured:,} schedules measured"
    return measured if now.share is None else f"{spent_words(now.share, now.budget)}; {measured}"


def _share(now: Progress) -> float | None:
    if now.stage == "validation":
        return now.done / now.total if now.total else None
    return now.share
