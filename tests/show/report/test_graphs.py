"""The graphs draw what is known: made-up frames, notes and ledgers with numbers to check."""

import re
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from s3search.processes import edm
from s3search.schedules.published import dpmpp_2m, unipc
from s3search.show.pictures import time_lines
from s3search.show.report import graphs
from s3search.show.report.data import Pick, calibration_of, costs_of, progress_of
from s3search.show.report.svg import SERIES, svg_of

_BEGAN = datetime(2026, 1, 1)


def _row(i: int, value: float | None, origin: str = "", **other: Any) -> dict[str, Any]:
    return {
        "id": i,
        "rung": "search",
        "state": "complete" if value is not None else "failed",
        "value": value,
        "nfe": 5,
        "n_images": 100,
        "network_calls": 500 if value is not None else None,
        "created_at": _BEGAN + timedelta(seconds=i),
        "is_baseline": origin.startswith("baseline"),
        "vetoed": False,
        "solver": origin.removeprefix("baseline: ").split(",")[0],
        **other,
    }


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        [
            _row(1, 2.0, "baseline: DDIM, karras"),
            _row(2, 1.0, "baseline: UniPC, karras"),
            _row(3, 1.5, "baseline: DDIM, logsnr"),
            _row(4, 3.0),
            _row(5, None),
            _row(6, 0.5, rung="race", network_calls=200),
            _row(7, 0.9),
            _row(8, 0.95),
            _row(9, 0.1, nfe=4, network_calls=400),
            _row(12, 0.7),
            _row(20, 0.01, rung="validation", network_calls=50_000),
        ]
    )


_JOBS = [
    {"network_calls": 1000, "created_at": _BEGAN + timedelta(seconds=10)},
    {"network_calls": 30, "created_at": _BEGAN + timedelta(seconds=13)},
]


def test_best_so_far_counts_every_call_in_its_order() -> None:
    """Baselines 1,500, then 3.0 at 2,000; a race's 200 and 0.9 at 2,700; 0.95, the other NFE, a
    job and 0.7 at 5,100; a last job.  A race's value and the validation are no points.
    """
    found = progress_of(_frame(), _JOBS, 5)
    assert found.found == ((2000, 3.0), (2700, 0.9), (5100, 0.7), (5130, 0.7))
    assert found.published == (("UniPC", 1.0), ("DDIM", 1.5))
    assert (found.total_calls, found.n_images) == (5130, 100)
    other = progress_of(_frame(), _JOBS, 4)
    assert other.found == ((3600, 0.1), (5130, 0.1))
    assert other.published == ()


def test_the_progress_is_drawn_at_its_numbers() -> None:
    (axes,) = graphs.progress_figure(progress_of(_frame(), _JOBS, 5)).axes
    unipc_line, ddim_line, curve, _ = axes.lines
    assert list(curve.get_xdata()) == [2000, 2700, 5100, 5130]
    assert list(curve.get_ydata()) == [3.0, 0.9, 0.7, 0.7]
    assert curve.get_drawstyle() == "steps-post"
    assert [line.get_ydata()[0] for line in (unipc_line, ddim_line)] == [1.0, 1.5]
    low, high = axes.get_ylim()
    assert low < 0.7 and high > 3.0
    empty = graphs.progress_figure(progress_of(_frame(), _JOBS, 9))
    assert len(empty.axes[0].lines) == 0


def _published(name: str, value: float, interval: tuple[float, float] | None) -> dict[str, Any]:
    row = {"name": name, "value": value, "interval_95": interval}
    return row | {"is_baseline": True, "is_winner": False}


def test_the_comparison_draws_values_and_intervals() -> None:
    rows = [
        _published("a", 0.2, (0.1, 0.3)),
        _published("DDIM", 0.4, None),
        {
            "is_winner": True,
            "schedule_id": "0123456789",
            "is_baseline": False,
            "value": 0.1,
            "interval_95": (0.05, 0.2),
        },
    ]
    (axes,) = graphs.comparison_figure(rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "s3search (01234567),\nexported",
        "a",
        "DDIM",
    ]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert drawn == [
        ([0.05, 0.2], [0, 0]),
        ([0.1], [0]),
        ([0.1, 0.3], [1, 1]),
        ([0.2], [1]),
        ([0.4], [2]),
    ]


def test_the_calibration_draws_each_stage_apart() -> None:
    common = {"nfe": 5, "n": 2, "spearman": 1.0, "mean_abs_rank_error": 0.0, "coverage": 1.0}
    notes = [
        ("calibration", {**common, "stage": 1, "ranks": [[0.0, 0.5], [1.0, 1.0]]}),
        ("calibration", {**common, "stage": 2, "ranks": [[0.25, 0.0]]}),
        ("calibration", {**common, "stage": 1, "ranks": [[0.75, 0.0]]}),
        ("calibration", {**common, "stage": 1, "nfe": 4}),  # of before single ranks were kept
    ]
    found = calibration_of(notes)
    assert [each.nfe for each in found] == [4, 5, 5, 5]
    assert found[0].ranks == ()
    (axes,) = graphs.calibration_figure([each for each in found if each.nfe == 5]).axes
    _, first, second = axes.lines
    assert (list(first.get_xdata()), list(first.get_ydata())) == (
        [0.0, 1.0, 0.75],
        [0.5, 1.0, 0.0],
    )
    assert (list(second.get_xdata()), list(second.get_ydata())) == ([0.25], [0.0])
    assert first.get_marker() != second.get_marker()


def test_the_ladder_draws_correlations_where_there_are_any() -> None:
    worth = {"n": 9, "n_top": 5, "correlation": 0.8, "top_correlation": None}
    inside = {**worth, "correlation": -0.3, "top_correlation": 0.5}
    rungs = [
        {"rung": "gaussian", "next": "FD@10", "seeds": worth, "end": inside},
        {"rung": "FD@10", "next": "finals", "seeds": None, "end": None},
        {"rung": "finals", "next": None, "seeds": None, "end": None},
    ]
    (axes,) = graphs.ladder_figure(rungs).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["gaussian > FD@10", "FD@10 > finals"]
    points = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert points == [0.8, -0.3, 0.5]


def test_the_times_are_those_of_the_schedules() -> None:
    process = edm()
    best, published = unipc(process, nfe=5, order=3), dpmpp_2m(process, nfe=5)
    picks = [
        Pick(label="", name="", schedule=s, value=1.0, is_baseline=b, is_winner=not b)
        for s, b in ((best, False), (published, True))
    ]
    (axes,) = graphs.times_figure(picks).axes
    for line, schedule in zip(axes.lines, (best, published), strict=True):
        ratios = [each.ratio for each in time_lines(schedule) if each.ratio > 0]
        assert list(line.get_ydata()) == pytest.approx(ratios)
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]


def test_the_lines_of_a_schedule_count_its_calls() -> None:
    schedule = unipc(edm(), nfe=5, order=3)
    lines = time_lines(schedule)
    assert sum(line.n_calls for line in lines) == schedule.nfe
    assert [line.t for line in lines] == list(schedule.times)
    assert lines[-1].step == "" and all(line.step for line in lines[:-1])


def test_the_shares_of_the_ledger_are_of_all() -> None:
    costs = costs_of(
        {
            "search": {"count": 3, "network_calls": 300, "seconds": 1.0},
            "polish": {"count": 1, "network_calls": 100, "seconds": 3.0},
        }
    )
    assert [(c.name, c.calls_share, c.seconds_share) for c in costs] == [
        ("polish", 0.25, 0.75),
        ("search", 0.75, 0.25),
    ]
    (free,) = costs_of({"floor": {"count": 1, "network_calls": 0, "seconds": 0.0}})
    assert (free.calls_share, free.seconds_share) == (0.0, 0.0)


def test_a_drawing_takes_the_colours_and_letters_of_the_page() -> None:
    progress = progress_of(_frame(), _JOBS, 5)
    drawn = svg_of(lambda: graphs.progress_figure(progress), "a", 'Says "<b>"')
    assert drawn.startswith("<svg")
    assert "http" not in drawn
    assert SERIES[0] not in drawn and "var(--series-0)" in drawn
    assert "DejaVu" not in drawn and "<style" not in drawn
    assert ">found, 0.7<" in drawn
    assert 'aria-label="Says &quot;&lt;b&gt;&quot;"' in drawn
    assert all(name.startswith("a-") for name in re.findall(r'\bid="([^"]+)', drawn))
    again = svg_of(lambda: graphs.progress_figure(progress), "a", 'Says "<b>"')
    assert again == drawn


@pytest.mark.parametrize("name", ["<script>x</script>", "$a_{", "$x$ & y"])
def test_names_are_letters_in_a_drawing(name: str) -> None:
    frame = _frame().assign(solver=name)
    rows = [_published(name, 0.2, (0.1, 0.3))]
    for draw in (
        lambda: graphs.progress_figure(progress_of(frame, _JOBS, 5)),
        lambda: graphs.comparison_figure(rows),
    ):
        drawn = svg_of(draw, "a", "")
        assert "<script" not in drawn
        assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in drawn
