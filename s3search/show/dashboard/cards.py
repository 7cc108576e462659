"""Graphs on a study's page of Optuna dashboard, from plain data.

Each has an id of its own that says what it shows and for how many calls, so that a later one
replaces it.  The dashboard walks over all pieces of all cards for every trial that it sends: cards
are small, without plotly's template and with numbers of six digits.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go  # type: ignore[import-untyped]

from s3search.show.dashboard.choices import Choices
from s3search.show.pictures import time_lines
from s3search.show.report.data import Calibrated, Collected, Cost, Pick, Proxied, SearchCurve
from s3search.show.report.graphs import row_name
from s3search.show.report.svg import MUTED, SERIES
from s3search.study.metric_words import FRECHET, MetricWords

_DASHES = ("dash", "dashdot", "dot")
_MOST_COMPARED = 12  # rows of a comparison, the best
_SHOWN = 30.0  # times the smallest: what an axis shows before one zooms out


def cards_of(collected: Collected, choices: Sequence[Choices]) -> dict[str, go.Figure]:
    """All cards of a study by their id."""
    cards = {"s3search-cost": cost_card(collected.costs)}
    if len(collected.best) > 1:
        cards["s3search-front"] = front_card(collected.comparison["rows"], collected.words)
    for progress in collected.progress:
        cards[f"s3search-progress-nfe{progress.nfe}"] = progress_card(progress)
    for nfe, picks in collected.picks.items():
        cards[f"s3search-times-nfe{nfe}"] = times_card(nfe, picks)
        rows = [row for row in collected.comparison["rows"] if row["nfe"] == nfe]
        cards[f"s3search-compared-nfe{nfe}"] = comparison_card(nfe, rows, collected.words)
        batches = [each for each in collected.calibration if each.nfe == nfe and each.ranks]
        if batches:
            cards[f"s3search-predictor-nfe{nfe}"] = calibration_card(nfe, batches)
    for proxied in collected.proxies:
        name = f"s3search-proxy-{proxied.proxy}-nfe{proxied.nfe}"
        cards[name] = proxy_card(proxied)
    for each in choices:
        cards[f"s3search-choices-nfe{each.nfe}"] = choices_card(each)
    return cards


def progress_card(progress: SearchCurve) -> go.Figure:
    """Best so far against network calls, with a line for each of the best published solvers."""
    lines = []
    if progress.found:
        calls, values = zip(*progress.found, strict=True)
        line = {"shape": "hv", "color": SERIES[0], "width": 3}
        name = f"found, {values[-1]:.4g}"
        lines.append(_scatter("lines+markers", name, _short(calls), _short(values), line=line))
    lines += [
        _scatter(
            "lines",
            f"{html.escape(name)}, {value:.4g}",
            [0, progress.total_calls],
            _short([value, value]),
            line={"dash": dash, "color": SERIES[1]},
        )
        for (name, value), dash in zip(progress.published, _DASHES, strict=False)
    ]
    return _figure(
        lines,
        f"NFE {progress.nfe}: best so far",
        x={"title": {"text": "network calls of the search (images x calls)"}},
        y=_axis(
            f"{progress.words.noun} of {progress.n_images:,} images",
            progress.values,
            words=progress.words,
        ),
    )


def comparison_card(
    nfe: int, rows: Sequence[Mapping[str, Any]], words: MetricWords = FRECHET
) -> go.Figure:
    """Held-out value and 95 % interval of found and published, the best on top."""
    shown = sorted(rows, key=lambda row: words.direction.loss(row["value"]))[:_MOST_COMPARED]
    points = []
    for is_baseline in (False, True):
        own = [row for row in shown if row["is_baseline"] is is_baseline]
        points.append(
            _scatter(
                "markers",
                "published" if is_baseline else "found",
                _short([row["value"] for row in own]),
                [html.escape(row_name(row)) for row in own],
                marker={"color": SERIES[1 if is_baseline else 0], "size": 10},
                error_x=_whiskers(own),
            )
        )
    names = [html.escape(row_name(row)) for row in reversed(shown)]
    order = {"categoryorder": "array", "categoryarray": names, "automargin": True}
    return _figure(
        points,
        f"NFE {nfe}: {words.noun} on held-out noise, 95 % interval",
        x=_axis(
            words.noun,
            [row["value"] for row in shown],
            [row["interval_95"][0] for row in shown if row["interval_95"]],
            words=words,
            is_whole=True,
        ),
        y={"type": "category", **order},
    )


def front_card(rows: Sequence[Mapping[str, Any]], words: MetricWords) -> go.Figure:
    """Held-out value of the best found and the best published schedule against their calls."""
    lines = []
    for is_baseline, name in ((False, "found"), (True, "best published")):
        of_kind = [row for row in rows if row["is_baseline"] is is_baseline]
        worst_first = sorted(of_kind, key=lambda row: -words.direction.loss(row["value"]))
        by_nfe = {row["nfe"]: row for row in worst_first}
        best = [by_nfe[nfe] for nfe in sorted(by_nfe)]
        lines.append(
            _scatter(
                "lines+markers",
                name,
                [row["nfe"] for row in best],
                _short([row["value"] for row in best]),
                line=_line(is_baseline),
                text=[html.escape(row_name(row)) for row in best],
                error_y=_whiskers(best),
            )
        )
    return _figure(
        lines,
        f"{words.noun.capitalize()} against network calls, on held-out noise, 95 % interval",
        x={"title": {"text": "network calls per image (NFE)"}, "dtick": 1},
        y=_axis(words.noun, [row["value"] for row in rows], words=words, is_whole=True),
    )


def times_card(nfe: int, picks: Sequence[Pick]) -> go.Figure:
    """Noise over the steps of the best validated schedules; the best published dashed."""
    lines = []
    for pick in picks:
        points = [
            (line.index, line.ratio)
            for line in time_lines(pick.schedule)
            if 0.0 < line.ratio < math.inf  # the clean end and pure noise have no place here
        ]
        lines.append(
            _scatter(
                "lines+markers",
                html.escape(f"{pick.label}, {pick.value:.4g}"),
                [step for step, _ in points],
                _short([ratio for _, ratio in points]),
                line=_line(pick.is_baseline) | {"width": 3 if pick.is_winner else 1},
            )
        )
    return _figure(
        lines,
        f"NFE {nfe}: times of the best schedules",
        x={"title": {"text": "time index"}, "dtick": 1},
        y={"title": {"text": "sigma / alpha"}, "type": "log"},
    )


def calibration_card(nfe: int, batches: Sequence[Calibrated]) -> go.Figure:
    """Predicted against measured rank of each schedule that the predictor chose, by stage."""
    line = {"dash": "dot", "color": MUTED}
    marks = [_scatter("lines", "as predicted", [0.0, 1.0], [0.0, 1.0], line=line)]
    for i, stage in enumerate(dict.fromkeys(batch.stage for batch in batches)):
        points = [pair for each in batches if each.stage == stage for pair in each.ranks]
        x, y = (_short([pair[k] for pair in points]) for k in (0, 1))
        colour = {"color": SERIES[i % len(SERIES)]}
        marks.append(_scatter("markers", f"stage {stage}", x, y, marker=colour))
    return _figure(
        marks,
        f"NFE {nfe}: the predictor against what was measured",
        x={"title": {"text": "predicted rank in its batch (0 is best)"}},
        y={"title": {"text": "measured rank in its batch"}},
    )


def proxy_card(proxied: Proxied) -> go.Figure:
    """What a proxy said of schedules against their value at the search rung."""
    noun = proxied.words.noun
    x, y = (_short([pair[k] for pair in proxied.pairs]) for k in (0, 1))
    marks = _scatter("markers", proxied.proxy, x, y, marker={"color": SERIES[0]})
    ranks = "" if proxied.correlation is None else f", rank correlation {proxied.correlation:.2f}"
    return _figure(
        [marks],
        f"NFE {proxied.nfe}: proxy {proxied.proxy} against {noun}{ranks}",
        x=_axis(f"what {proxied.proxy} says", [said for said, _ in proxied.pairs]),
        y=_axis(
            f"{noun} of {proxied.n_images:,} images",
            [value for _, value in proxied.pairs],
            words=proxied.words,
        ),
    )


def cost_card(costs: Sequence[Cost]) -> go.Figure:
    """The ledger: which rung took which share of network calls and of the workers' time."""
    shown = list(reversed(costs))  # plotly draws bars from below
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "marker": {"color": colour},
            "y": [html.escape(cost.name) for cost in shown],
            "x": _short([100 * share for share in shares]),
            "text": [f"{amount:,.0f}" for amount in amounts],
            "textposition": "outside",  # inside, plotly shrinks it to the bar
            "textfont": {"size": 10},
            "constraintext": "none",
            "cliponaxis": False,
        }
        for name, colour, shares, amounts in (
            (
                "network calls",
                SERIES[0],
                [cost.calls_share for cost in shown],
                [cost.network_calls for cost in shown],
            ),
            (
                "worker seconds",
                SERIES[1],
                [cost.seconds_share for cost in shown],
                [cost.seconds for cost in shown],
            ),
        )
    ]
    return _figure(
        bars,
        "What the study cost",
        x={"title": {"text": "share of the whole study, %"}},
        y={"automargin": True, "type": "category"},
    )


def choices_card(choices: Choices) -> go.Figure:
    """How many of the best schedules made each choice at each step."""
    cells = {
        "type": "heatmap",
        "colorscale": "Blues",
        "zmin": 0,
        "zmax": 100,
        "x": list(range(len(choices.shares[0]))),
        "y": [html.escape(name) for name in reversed(choices.names)],
        "z": [_short([100 * share for share in row]) for row in reversed(choices.shares)],
        "colorbar": {"title": {"text": "%"}},
    }
    return _figure(
        [cells],
        f"NFE {choices.nfe}: choices of the best {choices.n_schedules} of {choices.n_measured:,}",
        x={"title": {"text": "step"}, "dtick": 1},
        y={"automargin": True, "type": "category"},
    )


def _scatter(
    mode: str, name: str, x: Sequence[float], y: Sequence[Any], **more: Any
) -> dict[str, Any]:
    """Points or lines; ``more`` is of plotly, how they are drawn first."""
    style: dict[str, Any] = {key: more.pop(key) for key in ("line", "marker") if key in more}
    return {"type": "scatter", "mode": mode, **style, "name": name, "x": x, "y": y, **more}


def _line(is_baseline: bool) -> dict[str, Any]:
    if is_baseline:
        return {"color": SERIES[1], "dash": "dash"}
    return {"color": SERIES[0], "dash": "solid"}


def _figure(
    traces: Sequence[Mapping[str, Any]], title: str, *, x: dict[str, Any], y: dict[str, Any]
) -> go.Figure:
    """A figure that plotly has checked, without its template."""
    layout = {
        "title": {"text": title},
        "xaxis": x,
        "yaxis": y,
        "legend": {"orientation": "h", "y": -0.35},
        "template": {},
    }
    return go.Figure(data=list(traces), layout=layout)


def _axis(
    title: str,
    values: Sequence[float],
    lower: Sequence[float] = (),
    *,
    words: MetricWords = FRECHET,
    is_whole: bool = False,
) -> dict[str, Any]:
    """A linear axis; where `MetricWords.is_logarithmic`, a logarithmic one that begins below the
    ``lower`` ends of intervals, but for those near zero, and unless it is whole is not squeezed by
    a single poor value.
    """
    if not words.is_logarithmic(values):
        return {"title": {"text": title}}
    axis: dict[str, Any] = {"title": {"text": title}, "type": "log"}
    known = [value for value in values if value > 0]
    if known and max(known) > _SHOWN * min(known):
        most = max(v for v in known if is_whole or v <= _SHOWN * min(known))
        least = min([*known, *(end for end in lower if end * _SHOWN > min(known))])
        axis["range"] = _short([math.log10(least / 1.2), math.log10(most * 1.2)])
    return axis


def _short(values: Sequence[float]) -> list[float]:
    """Six digits: what nobody sees costs space in the database."""
    return [float(f"{value:.6g}") for value in values]


def _whiskers(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The 95 % intervals around the values; none where it is not known."""
    ends = [(row["value"], *(row["interval_95"] or (row["value"],) * 2)) for row in rows]
    return {
        "type": "data",
        "symmetric": False,
        "array": _short([high - value for value, _, high in ends]),
        "arrayminus": _short([value - low for value, low, _ in ends]),
    }
