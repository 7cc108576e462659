"""The graphs of a page, from plain data; colours are keys that `svg` turns into the page's own."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from s3search.schedules.schedule import Schedule
from s3search.show.pictures import time_lines
from s3search.show.report.data import Calibrated, Pick, SearchCurve
from s3search.show.report.svg import GRID, MUTED, SERIES
from s3search.study.metric_words import FRECHET, MetricWords

_WIDTH = 4.9  # inches: what a telephone still shows with readable letters
_MARKERS = "os^Dv*"
_DASHES = ("--", "-.", ":")  # of the best published solvers, the best first
_NAME_WIDTH = 34  # letters on a line of a graph
_WRAPPED = 26  # letters beside one


def progress_figure(progress: SearchCurve) -> Figure:
    """Best so far against network calls, with a line for each published solver."""
    figure, axes = _new(3.4)
    total = max(progress.total_calls, 1)
    for (name, value), dashes in zip(progress.published, _DASHES, strict=False):
        short = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
        label = f"{short}, {value:.4g}"
        axes.axhline(value, color=SERIES[1], linestyle=dashes, linewidth=1.3, label=label)
    if progress.found:
        calls, values = zip(*progress.found, strict=True)
        label = f"found, {values[-1]:.4g}"
        axes.step(calls, values, where="post", color=SERIES[0], linewidth=2.2, label=label)
        axes.plot(calls[:-1], values[:-1], "o", color=SERIES[0], markersize=4)
    axes.set_xlim(0, 1.02 * total)
    if progress.words.is_logarithmic(progress.values):
        axes.set_yscale("log")
        _decades(axes, progress.values)
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=2, fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: counted(value)))
    axes.set_xlabel("network calls of the search (images x calls)")
    axes.set_ylabel(f"{progress.words.noun} of {progress.n_images:,} images")
    return figure


def comparison_figure(rows: Sequence[Mapping[str, Any]], words: MetricWords = FRECHET) -> Figure:
    """Held-out value and 95 % interval of each row of one NFE, the best on top."""
    ordered = sorted(rows, key=lambda row: words.direction.loss(row["value"]))
    figure, axes = _new(0.9 + 0.4 * len(ordered))
    for place, row in enumerate(ordered):
        colour = SERIES[1] if row["is_baseline"] else SERIES[0]
        if row["interval_95"] is not None:
            axes.plot(row["interval_95"], [place, place], color=colour, linewidth=2.0)
        marker = "s" if row["is_baseline"] else "o"
        axes.plot([row["value"]], [place], marker, color=colour, markersize=6)
    names = ["\n".join(textwrap.wrap(row_name(row), _WRAPPED)) for row in ordered]
    axes.set_yticks(range(len(ordered)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    if words.is_logarithmic(row["value"] for row in ordered):
        axes.set_xscale("log")
        ends = [x for row in ordered for x in (row["value"], *(row["interval_95"] or ())) if x > 0]
        _decades(axes, ends, axis="x")
    axes.set_xlabel(f"{words.noun} on held-out noise, 95 % interval")
    return figure


def times_figure(picks: Sequence[Pick]) -> Figure:
    """Noise over the steps of the best schedules; published ones dashed."""
    figure, axes = _new(3.4)
    shown: list[float] = []
    for pick in sorted(picks, key=lambda pick: (pick.is_baseline, pick.is_winner)):  # last on top
        steps, ratios = _levels_of(pick.schedule)
        if not ratios:
            continue
        shown += ratios
        axes.plot(
            steps,
            ratios,
            marker="s" if pick.is_baseline else "o",
            markersize=5 if pick.is_winner or pick.is_baseline else 3,
            linestyle="--" if pick.is_baseline else "-",
            linewidth=2.4 if pick.is_winner else 1.2,
            color=SERIES[1] if pick.is_baseline else SERIES[0],
            alpha=1.0 if pick.is_winner or pick.is_baseline else 0.45,
            label="best published" if pick.is_baseline else "found",
        )
    _of_levels(axes, shown)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(list(unique.values()), list(unique), fontsize=8, frameon=False)
    return figure


def levels_figure(schedules: Sequence[Schedule], names: Sequence[str]) -> Figure:
    """Noise over the steps of schedules that are compared, each in its colour and dashes."""
    figure, axes = _new(3.4)
    shown: list[float] = []
    for i, (schedule, name) in enumerate(zip(schedules, names, strict=True)):
        steps, ratios = _levels_of(schedule)
        shown += ratios
        axes.plot(
            steps,
            ratios,
            marker=_MARKERS[i],
            linestyle=("-", *_DASHES)[i % 4],
            color=SERIES[i],
            label=name,
        )
    _of_levels(axes, shown)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _levels_of(schedule: Schedule) -> tuple[list[int], list[float]]:
    """Time indices and sigma / alpha there; the clean end and pure noise have no place."""
    lines = [line for line in time_lines(schedule) if 0.0 < line.ratio < math.inf]
    return [line.index for line in lines], [line.ratio for line in lines]


def _of_levels(axes: Axes, shown: Sequence[float]) -> None:
    axes.set_yscale("log")
    _decades(axes, shown)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("time index")
    axes.set_ylabel("sigma / alpha")


def ladder_figure(rungs: Sequence[Mapping[str, Any]]) -> Figure:
    """Rank correlation of each rung of one NFE with the next; best quarter hollow."""
    shown = [rung for rung in rungs if rung["next"] is not None]
    figure, axes = _new(1.15 + 0.42 * len(shown))
    for place, rung in enumerate(shown):
        for when, colour, shift in (("seeds", SERIES[0], -0.13), ("end", SERIES[2], 0.13)):
            found = rung[when]
            if found is None:
                continue
            y = place + shift
            if found["correlation"] is not None:
                axes.plot([0, found["correlation"]], [y, y], color=colour, linewidth=1.2)
                axes.plot([found["correlation"]], [y], "o", color=colour, markersize=6)
            if found["top_correlation"] is not None:
                axes.plot([found["top_correlation"]], [y], "D", mfc="none", color=colour)
    names = [f"{rung['rung']} > {rung['next']}" for rung in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.axvline(0.0, color=MUTED, linewidth=0.8)
    axes.set_xlim(-1.05, 1.05)
    axes.set_xlabel("Spearman's correlation with the next rung")
    for label, marker, colour in (
        ("measured first", "o", SERIES[0]),
        ("all", "o", SERIES[2]),
    ):
        axes.plot([], [], marker, color=colour, label=label)
    axes.plot([], [], "D", mfc="none", color=MUTED, label="best quarter")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def calibration_figure(batches: Sequence[Calibrated]) -> Figure:
    """Predicted against measured rank of one NFE, a colour and marker for each stage."""
    figure, axes = _new(4.2)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=":")
    for i, stage in enumerate(dict.fromkeys(batch.stage for batch in batches)):
        points = [pair for each in batches if each.stage == stage for pair in each.ranks]
        if not points:
            continue
        predicted, measured = zip(*points, strict=True)
        axes.plot(
            predicted,
            measured,
            _MARKERS[i % len(_MARKERS)],
            color=SERIES[i % len(SERIES)],
            markersize=5,
            alpha=0.8,
            label=f"stage {stage}",
        )
    axes.set_xlabel("predicted rank in its batch (0 is best)")
    axes.set_ylabel("measured rank in its batch")
    axes.set_aspect("equal")
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def row_name(row: Mapping[str, Any]) -> str:
    """What a row of the comparison is called, and whether it is exported."""
    name = str(row["name"]) if row["is_baseline"] else f"s3search ({row['schedule_id'][:8]})"
    return f"{name}, exported" if row["is_winner"] else name


def counted(value: float) -> str:
    """12,300,000 as 12.3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _new(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(labelsize=9, color=MUTED)
    return figure, axes


def _decades(axes: Axes, values: Sequence[float], axis: str = "y") -> None:
    """Limits around ``values`` and plain numbers at 1, 2 and 5 of each decade, as far as there is
    room.
    """
    if not values:
        return
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.08, 1.1)
    low, high = low / margin, high * margin
    n_decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if n_decades <= 2.5 else (1.0,)
    every = max(1, math.ceil(n_decades / 6))
    ticks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
        for step in steps
        if low <= step * 10.0**power <= high
    ]
    if len(ticks) < 2:
        ticks = [float(f"{low * (high / low) ** share:.2g}") for share in (0.2, 0.5, 0.8)]
    target = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xlim if axis == "x" else axes.set_ylim)(low, high)
    target.set_major_locator(FixedLocator(ticks))
    target.set_minor_locator(NullLocator())
    target.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    target.set_minor_formatter(NullFormatter())
