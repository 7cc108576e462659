"""Pictures of schedules and of what they make; matplotlib without a display or global state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from s3search.files import neighbour
from s3search.rules import Adams, AnyRule, Free, Level, Taylor, UniPC, level
from s3search.schedules.schedule import Schedule, StartKind, Step

_COLOURS = {"data": "#2a6f97", "noise": "#ad5220", "slope": "#55742f"}
_BAR_WIDTH = 16
_DPI = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLine:
    """A time of a schedule in words: its noise, the network's calls and the step that follows."""

    index: int
    t: float  # in the process's unit
    ratio: float  # sigma / alpha, inf for pure noise
    n_calls: int  # two with an implicit corrector
    step: str  # empty at the last time


def time_lines(schedule: Schedule) -> list[TimeLine]:
    """One line for each of the n_steps + 1 times."""
    return [
        TimeLine(
            index=i,
            t=t,
            ratio=_ratio(level(schedule.process, t)),
            n_calls=len(_calls(schedule, i)),
            step=_sentence(schedule.steps[i]) if i < schedule.n_steps else "",
        )
        for i, t in enumerate(schedule.times)
    ]


def describe_rule(rule: AnyRule) -> tuple[str, str, int]:
    """Family, what it extrapolates (`data`, `noise` or `slope`) and order of a rule.

    A free step has no order of its own: it is counted by its predictions.
    """
    match rule:
        case Taylor():
            return "Taylor", rule.prediction.value, rule.order
        case UniPC():
            return f"UniPC {rule.variant.value}", rule.prediction.value, len(rule.points) + 1
        case Adams():
            return "Adams", "slope", len(rule.points)
        case Free():
            return "Free", "data", rule.n_points
        case _:
            return type(rule).__name__, "slope", rule.n_points


def draw_schedule(schedule: Schedule, path: Path, title: str = "") -> None:
    """Writes a PNG: noise levels over the steps, and a strip with the choice made at each."""
    save_figure(schedule_figure(schedule, title), path)


def schedule_figure(schedule: Schedule, title: str = "") -> Figure:
    """The same as a figure."""
    n = schedule.n_steps
    figure = Figure(figsize=(max(6.0, 1.05 * n + 2.0), 4.6), layout="constrained")
    levels, strip = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.3])
    figure.suptitle(title or f"schedule {schedule.id[:8]}, NFE {schedule.nfe}", fontsize=11)
    _draw_levels(levels, schedule)
    _draw_strip(strip, schedule)
    handles = [
        Patch(color=colour, label=f"extrapolates {name}") for name, colour in _COLOURS.items()
    ]
    strip.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=3, fontsize=8
    )
    return figure


def draw_samples(rows: Sequence[tuple[str, Tensor]], path: Path, title: str = "") -> None:
    """Writes a PNG with one labelled row of images per entry; images (n, C, H, W) in [-1, 1]."""
    n = len(rows[0][1])
    figure = Figure(figsize=(0.62 * n + 2.6, 0.72 * len(rows) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), n, squeeze=False)
    for axes_row, (label, images) in zip(grid, rows, strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            axes.imshow(displayable(image), cmap="gray", vmin=0.0, vmax=1.0)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    save_figure(figure, path)


def terminal_drawing(schedule: Schedule) -> RenderableType:
    """The schedule as a table with a bar per noise level, for the terminal."""
    levels = [level(schedule.process, t) for t in schedule.times]
    table = Table(box=None, pad_edge=False)
    for heading in (
        "",
        "t",
        "sigma/alpha",
        "noise (log scale)",
        "network",
        "step to the next time",
    ):
        table.add_column(
            heading, justify="right" if heading in ("", "t", "sigma/alpha") else "left"
        )
    for line, at in zip(time_lines(schedule), levels, strict=True):
        table.add_row(
            str(line.index),
            f"{line.t:.5g}",
            f"{line.ratio:.4g}",
            Text("█" * _bar(at, levels), style="cyan"),
            "●" * line.n_calls,
            line.step,
        )
    head = Text(
        f"{schedule.process.type} schedule {schedule.id[:8]}: "
        f"{schedule.n_steps} steps, NFE {schedule.nfe}, start {schedule.start.kind.value}"
        + ("" if schedule.start.jump is None else " after a Gaussian jump")
    )
    return Group(head, table)


def _draw_levels(axes: Axes, schedule: Schedule) -> None:
    ratios = [_ratio(level(schedule.process, t)) for t in schedule.times]
    low, high = _shown_range(ratios)
    shown = [min(max(ratio, low), high) for ratio in ratios]
    steps = range(len(shown))
    axes.plot(steps, shown, color="#555555", linewidth=1.2)
    called = [i for i in steps if _calls(schedule, i)]
    axes.plot(called, [shown[i] for i in called], "o", color="#222222", label="network call")
    rest = [i for i in steps if i not in called]
    axes.plot(rest, [shown[i] for i in rest], "o", mfc="white", color="#222222", label="no call")
    for i, (ratio, y) in enumerate(zip(ratios, shown, strict=True)):
        axes.annotate(f"{ratio:.3g}", (i, y), (4, 5), textcoords="offset points", fontsize=8)
    axes.set_yscale("log")
    axes.set_ylabel("sigma / alpha")
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(visible=True, which="major", alpha=0.25)
    axes.margins(y=0.15)


def _draw_strip(axes: Axes, schedule: Schedule) -> None:
    for i, step in enumerate(schedule.steps):
        family, extrapolated, order = describe_rule(step.predictor)
        colour = _COLOURS[extrapolated]
        axes.bar(i + 0.5, 1.0, width=0.94, color=colour)
        text = f"{family}\n{_extent(step.predictor, order)}"
        if step.corrector is not None:
            text += f"\n+ {step.corrector.kind.value}"
        axes.text(i + 0.5, 0.5, text, ha="center", va="center", color="white", fontsize=7)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks(range(schedule.n_steps + 1))
    axes.set_xlabel("time index")
    axes.set_xlim(-0.3, schedule.n_steps + 0.3)


def _calls(schedule: Schedule, i: int) -> str:
    """What the network does at time i: empty, one call, or two with an implicit corrector."""
    if i == 0:
        analytic = schedule.start.kind is not StartKind.NETWORK
        return "" if analytic else "●"
    corrector = schedule.steps[i - 1].corrector
    if i == schedule.n_steps and corrector is None:
        return ""
    return "●●" if corrector is not None and corrector.kind.value == "implicit" else "●"


def _sentence(step: Step) -> str:
    family, extrapolated, order = describe_rule(step.predictor)
    text = f"{family}, {extrapolated}, {_extent(step.predictor, order)}"
    relaxed = [
        f"{d.relaxation.kind.value}" + ("" if c is None else f" {c:+.3g}")
        for d in getattr(step.predictor, "derivatives", ())
        if d.relaxation is not None
        for c in [d.relaxation.coefficient]
    ]
    if relaxed:
        text += f" ({', '.join(relaxed)})"
    if step.corrector is not None:
        text += f", then {step.corrector.kind.value} corrector"
    if step.compensation is not None:
        text += f", after {step.compensation.sentence}"
    if step.network_time is not None:
        text += f"; network told {step.network_time:.5g}"
    return text


def _extent(rule: AnyRule, order: int) -> str:
    if not isinstance(rule, Free):
        return f"order {order}"
    return "1 prediction" if order == 1 else f"{order} predictions"


def _ratio(at: Level) -> float:
    return at.sigma / at.alpha if at.alpha else math.inf


def _shown_range(ratios: Sequence[float]) -> tuple[float, float]:
    """Where a clean end and pure noise are drawn on a logarithmic axis."""
    finite = [r for r in ratios if 0 < r < math.inf] or [1.0]
    return min(finite) / 3.0, max(finite) * 3.0


def _bar(at: Level, levels: Sequence[Level]) -> int:
    lams = [other.lam for other in levels if math.isfinite(other.lam)]
    if not math.isfinite(at.lam) or len(lams) < 2:
        return 0 if at.lam > 0 else _BAR_WIDTH
    return 1 + round((_BAR_WIDTH - 1) * (max(lams) - at.lam) / (max(lams) - min(lams)))


def displayable(image: Tensor) -> np.ndarray:  # (C, H, W) in [-1, 1] -> (H, W[, 3]) in [0, 1]
    """Pixels as matplotlib and Pillow take them; of other than three channels the first."""
    pixels = ((image.float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[-1] != 3 else pixels


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG whole, or nothing."""
    temporary = neighbour(path)
    figure.savefig(temporary, dpi=_DPI, format="png")
    temporary.replace(path)
