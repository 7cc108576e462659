"""The benchmark as pictures: quality against network calls, and what each rung of `s3` adds.

Colours are those of Okabe and Ito, which the colour-blind tell apart; every method also has its
own marker.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from s3search.show.pictures import save_figure
from s3search.tasks.benchmark.results import Summary

_STYLES = (  # the first is s3's
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#8C6D31", "X"),
)
_PUBLISHED = "#444444"
_PANEL = 4.1  # inches


def is_rung(method: str) -> bool:
    """Whether this is `s3` with some of its rungs."""
    return method.startswith("s3 ")


def draw_quality(found: Sequence[Summary], path: Path) -> None:
    """Writes a PNG: held-out distance against network calls, a panel for each number of calls."""
    shown = [each for each in found if each.held_out is not None and not is_rung(each.method)]
    searches = list(dict.fromkeys(each.method for each in shown if not each.is_published))
    panels = sorted({each.nfe for each in shown})
    figure = Figure(figsize=(max(6.4, _PANEL * len(panels)), 4.6), layout="constrained")
    axes_row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, nfe in zip(axes_row, panels, strict=True):
        of_nfe = [each for each in shown if each.nfe == nfe]
        _draw_published(axes, [each for each in of_nfe if each.is_published])
        for i, method in reversed(list(enumerate(searches))):  # s3 on top
            _draw_curve(axes, [each for each in of_nfe if each.method == method], i)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_ticks(axes)
        axes.set_title(f"NFE {nfe}", fontsize=11)
        axes.grid(visible=True, which="both", alpha=0.2)
    axes_row[0].set_ylabel("Fréchet distance, held-out noise")
    figure.supxlabel("network calls of the search (images x calls)", fontsize=10)
    handles = {
        label: handle
        for axes in axes_row
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    order = sorted(handles, key=lambda label: ([*searches, label].index(label), label))
    figure.legend(
        [handles[label] for label in order],
        order,
        loc="outside upper center",
        ncols=min(len(order), 3 * len(panels)),
        fontsize=9,
        frameon=False,
    )
    save_figure(figure, path)


def draw_ladder(found: Sequence[Summary], path: Path) -> None:
    """Writes a PNG: `s3` with its rungs added one by one, at the largest budget of each panel."""
    panels = sorted({each.nfe for each in found if is_rung(each.method)})
    figure = Figure(figsize=(max(6.4, 3.4 * len(panels) + 1.2), 3.3), layout="constrained")
    axes_row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, nfe in zip(axes_row, panels, strict=True):
        of_nfe = [each for each in found if each.nfe == nfe and each.held_out is not None]
        _draw_published(axes, [each for each in of_nfe if each.is_published], is_upright=True)
        rungs = _ladder(of_nfe)
        _draw_rungs(axes, rungs)
        budget = max((each.budget or 0 for each in rungs), default=0)
        axes.set_title(f"NFE {nfe}, budget {budget}", fontsize=11)
    figure.supxlabel(
        "Fréchet distance, held-out noise: median and range over seeds (dashed: best published)",
        fontsize=9,
    )
    save_figure(figure, path)


def _ladder(of_nfe: Sequence[Summary]) -> list[Summary]:
    """The rungs of the largest budget, the whole ladder last."""
    own = [each for each in of_nfe if is_rung(each.method) or each.method == "s3"]
    largest = max((e.budget or 0 for e in own if is_rung(e.method)), default=0)
    return [each for each in own if each.budget == largest]


def _draw_rungs(axes: Axes, rungs: Sequence[Summary]) -> None:
    places = range(len(rungs))
    for place, each in zip(places, rungs, strict=True):
        assert each.held_out is not None and each.lowest is not None and each.highest is not None
        axes.plot(
            [each.lowest, each.highest],
            [place, place],
            color=_STYLES[0][0],
            linewidth=5,
            alpha=0.3,
            solid_capstyle="round",
        )
        axes.plot(each.held_out, place, _STYLES[0][1], color=_STYLES[0][0], markersize=7)
        axes.annotate(
            f"{each.held_out:.3f}",
            (each.held_out, place),
            (0, 8),
            textcoords="offset points",
            fontsize=8,
            ha="center",
        )
    axes.set_yticks(list(places), [_rung_label(each.method) for each in rungs])
    axes.set_ylim(len(rungs) - 0.4, -0.8)
    axes.set_xscale("log")
    _plain_ticks(axes, only_x=True)
    axes.margins(x=0.15)
    axes.grid(visible=True, axis="x", which="both", alpha=0.2)


def _rung_label(method: str) -> str:
    if method == "s3":
        return "+ polish (all of s3)"
    return "no rung" if method.endswith("without ladder") else f"+ {method.rsplit(maxsplit=1)[-1]}"


def _draw_curve(axes: Axes, points: Sequence[Summary], place: int) -> None:
    colour, marker = _STYLES[place % len(_STYLES)]
    calls = [each.network_calls for each in points]
    values = [each.held_out or 0.0 for each in points]
    low = [each.lowest or 0.0 for each in points]
    high = [each.highest or 0.0 for each in points]
    if not points:
        return
    axes.fill_between(calls, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        calls,
        values,
        marker=marker,
        color=colour,
        linewidth=2.4 if place == 0 else 1.5,
        markersize=5.5,
        label=points[0].method,
    )


def _draw_published(axes: Axes, points: Sequence[Summary], *, is_upright: bool = False) -> None:
    """A dashed line at the best published solver."""
    for each in points:
        line = axes.axvline if is_upright else axes.axhline
        line(
            each.held_out or 0.0,
            color=_PUBLISHED,
            linestyle="--",
            linewidth=1.2,
            label="best published solver",
        )


def _plain_ticks(axes: Axes, *, only_x: bool = False) -> None:
    """Decades and their halves as plain numbers."""
    for axis in (axes.xaxis,) if only_x else (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        axis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
