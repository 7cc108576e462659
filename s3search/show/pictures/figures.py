"""Schedules as figures: noise levels over the steps, and the choice made at each."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from s3search.schedules.describing import describe_rule
from s3search.schedules.layers import skips_layers
from s3search.schedules.schedule import Schedule
from s3search.show.pictures.comparing import differing_steps
from s3search.show.pictures.samples import save_figure
from s3search.show.pictures.words import (
    TimeLine,
    guidance,
    skipped,
    time_lines,
)

_COLOURS = {"data": "#2a6f97", "noise": "#ad5220", "slope": "#55742f", "v3": "#6d4c8d"}
_MOST_WORDS = 40  # steps; more are drawn without words, in less room
_SIDES = (("#222222", "o", "-"), ("#c2185b", "s", "--"))
_MOST_BLOCKS = 6
_MOST_INCHES = 60.0
_DIFFERS = "#c2185b"


def draw_schedule(schedule: Schedule, path: Path, title: str = "") -> None:
    """Writes a PNG: noise levels over the steps, and a strip with the choice made at each."""
    save_figure(schedule_figure(schedule, title), path)


def schedule_figure(schedule: Schedule, title: str = "") -> Figure:
    """Noise levels over the steps and a strip of choices as a figure; between the two guidance and
    blocks left out, where there are any.
    """
    height = 4.6 + _guides(schedule) + skips_layers(schedule)
    figure = Figure(figsize=(_width(schedule.n_steps), height), layout="constrained")
    draw_schedule_on(figure, schedule, title)
    return figure


def draw_schedule_on(figure: FigureBase, schedule: Schedule, title: str = "") -> None:
    """Draws `schedule_figure` into an empty figure, or a part of one."""
    lines = time_lines(schedule)
    n_patches = _guides(schedule) + skips_layers(schedule)
    ratios = [3.0, *[1.0] * n_patches, 1.3]
    levels, *patches, strip = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    figure.suptitle(title or f"schedule {schedule.id[:8]}, NFE {schedule.nfe}", fontsize=11)
    _draw_levels(levels, lines)
    if _guides(schedule):
        _draw_guidance(patches[0], schedule)
    if skips_layers(schedule):
        _draw_skipped(patches[-1], schedule)
    _draw_strip(strip, schedule)
    strip.set_xlabel("time index")
    _explain(strip, [schedule])


def draw_comparison(
    schedules: tuple[Schedule, Schedule], names: tuple[str, str], path: Path
) -> None:
    """Writes a PNG of two schedules: their noise levels in one graph, and a strip of choices for
    each; steps that differ have a frame.
    """
    n_steps = max(schedule.n_steps for schedule in schedules)
    figure = Figure(figsize=(_width(n_steps), 6.2), layout="constrained")
    levels, *strips = figure.subplots(3, 1, sharex=True, height_ratios=[3.0, 1.3, 1.3])
    lines = [time_lines(schedule) for schedule in schedules]
    _draw_both_levels(levels, lines, names)
    differing = differing_steps(*schedules)
    for strip, schedule, name in zip(strips, schedules, names, strict=True):
        _draw_strip(strip, schedule, differing)
        strip.set_ylabel(name, fontsize=8, parse_math=False)
        strip.set_xlim(-0.3, n_steps + 0.5)
    strips[-1].set_xlabel("time index")
    _explain(strips[-1], schedules, framed=bool(differing))
    save_figure(figure, path)


def _draw_levels(axes: Axes, lines: Sequence[TimeLine]) -> None:
    ratios = [line.ratio for line in lines]
    shown = _shown(ratios, *_range(ratios))
    steps = range(len(shown))
    axes.plot(steps, shown, color="#555555", linewidth=1.2)
    called = [i for i in steps if lines[i].n_calls]
    axes.plot(called, [shown[i] for i in called], "o", color="#222222", label="network call")
    rest = [i for i in steps if i not in called]
    axes.plot(rest, [shown[i] for i in rest], "o", mfc="white", color="#222222", label="no call")
    if len(lines) <= _MOST_WORDS:
        for i, (ratio, y) in enumerate(zip(ratios, shown, strict=True)):
            axes.annotate(f"{ratio:.3g}", (i, y), (4, 5), textcoords="offset points", fontsize=8)
    _finish_levels(axes)


def _draw_both_levels(
    axes: Axes, lines: Sequence[Sequence[TimeLine]], names: tuple[str, str]
) -> None:
    limits = _range([line.ratio for own in lines for line in own])
    for own, name, (colour, marker, style) in zip(lines, names, _SIDES, strict=True):
        shown = _shown([line.ratio for line in own], *limits)
        axes.plot(
            range(len(shown)),
            shown,
            marker=marker,
            linestyle=style,
            color=colour,
            label=name,
            markersize=5,
            alpha=0.85,
        )
    _finish_levels(axes)
    legend = axes.get_legend()
    assert legend is not None
    for text in legend.get_texts():
        text.set_parse_math(False)


def _finish_levels(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.set_ylabel("sigma / alpha")
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(visible=True, which="major", alpha=0.25)
    axes.margins(y=0.15)


def _draw_guidance(axes: Axes, schedule: Schedule) -> None:
    calls = [(i, s) for i, scales in enumerate(guidance(schedule)) for s in scales]
    axes.plot(*zip(*calls, strict=True), "o-", color="#222222", markersize=4, linewidth=1.0)
    axes.set_ylabel("guidance", fontsize=9)
    axes.grid(visible=True, axis="y", alpha=0.25)
    axes.margins(y=0.25)


def _draw_skipped(axes: Axes, schedule: Schedule) -> None:
    """How many blocks the calls at each time leave out and, where there is room, which."""
    for i, calls in enumerate(skipped(schedule)):
        blocks = sorted({block for call in calls for block in call})
        axes.bar(i, len(blocks), width=0.5, color="#777777")
        if blocks and len(blocks) <= _MOST_BLOCKS and schedule.n_steps <= _MOST_WORDS:
            text = "\n".join(map(str, blocks))
            axes.text(i + 0.3, 0, text, fontsize=6, va="bottom")
    axes.set_ylabel("blocks\nleft out", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_strip(axes: Axes, schedule: Schedule, framed: Sequence[int] = ()) -> None:
    has_words = schedule.n_steps <= _MOST_WORDS
    for i, step in enumerate(schedule.steps):
        title, extrapolated, _ = describe_rule(step.predictor)
        edge, width = (_DIFFERS, 2.5) if i in framed else ("none", 0.0)
        colour = _COLOURS[extrapolated]
        axes.bar(i + 0.5, 1.0, width=0.94, color=colour, edgecolor=edge, linewidth=width)
        text = f"{title}\n{step.predictor.extent}"
        if step.corrector is not None:
            text += f"\n+ {step.corrector.kind.value}"
        if step.noise is not None:
            text += f"\n+ noise {step.noise.amount:.2g}"
        if has_words:
            axes.text(i + 0.5, 0.5, text, ha="center", va="center", color="white", fontsize=7)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    if has_words:
        axes.set_xticks(range(schedule.n_steps + 1))
    axes.set_xlim(-0.3, schedule.n_steps + 0.5)  # room for the last number


def _explain(strip: Axes, schedules: Sequence[Schedule], *, framed: bool = False) -> None:
    """The legend of the colours: those of old always, v3 where it is used."""
    used = {describe_rule(step.predictor)[1] for own in schedules for step in own.steps}
    handles = [
        Patch(color=colour, label=f"extrapolates {name}")
        for name, colour in _COLOURS.items()
        if name != "v3" or name in used
    ]
    if framed:
        handles.append(Patch(facecolor="none", edgecolor=_DIFFERS, label="differs", linewidth=2))
    strip.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.5),
        ncols=len(handles),
        fontsize=8,
    )


def _guides(schedule: Schedule) -> bool:
    patch = schedule.model_patch
    return patch is not None and bool(patch.guidance_scale)


def _width(n_steps: int) -> float:
    """Inches; in the end as many pixels as a PNG may have."""
    each = 1.05 if n_steps <= _MOST_WORDS else 0.2
    return min(max(6.0, each * n_steps + 2.0), _MOST_INCHES)


def _range(ratios: Sequence[float]) -> tuple[float, float]:
    """Where a clean end and pure noise are drawn on a logarithmic axis."""
    finite = [r for r in ratios if 0 < r < math.inf] or [1.0]
    return min(finite) / 3.0, max(finite) * 3.0


def _shown(ratios: Sequence[float], low: float, high: float) -> list[float]:
    return [min(max(ratio, low), high) for ratio in ratios]
