"""Schedules in words, letters and pictures, one alone and two side by side."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from optuna.distributions import FloatDistribution
from rich.console import Console, RenderableType

from s3search import published
from s3search.processes import edm, flow, vp_linear
from s3search.rules import Free, Prediction
from s3search.schedules.schedule import Schedule
from s3search.show.pictures import (
    compare_schedules,
    comparison_drawing,
    describe_rule,
    draw_comparison,
    draw_schedule,
    schedule_figure,
    terminal_drawing,
    time_lines,
)
from s3search.solvers.coefficients import as_coefficients
from s3search.study.optuna.summary import DISTRIBUTIONS, summary
from tests.support.helpers import EXAMPLES, schedules

_PNG = b"\x89PNG"


def _text(drawing: RenderableType, width: int = 160) -> str:
    console = Console(width=width)
    with console.capture() as shown:
        console.print(drawing)
    return shown.get()


def _changed(schedule: Schedule, **changes: object) -> Schedule:
    fields = {name: getattr(schedule, name) for name in Schedule.model_fields}
    return Schedule(**{**fields, **changes})


def test_free_steps_are_drawn_and_described(tmp_path: Path) -> None:
    schedule = as_coefficients(published.heun(edm(), nfe=5))
    console = Console(width=160)
    with console.capture() as shown:
        console.print(terminal_drawing(schedule))
    assert "Free, data, 2 predictions" in shown.get()
    draw_schedule(schedule, tmp_path / "free.png")
    assert (tmp_path / "free.png").read_bytes().startswith(b"\x89PNG")
    assert describe_rule(Free(q=(0.5, 0.5))) == ("Free", "data", 2)


def test_the_summary_of_a_long_free_schedule_fits_its_distributions() -> None:
    schedule = as_coefficients(published.dpmpp_2m(edm(), nfe=40))
    values = summary(schedule, is_baseline=False)
    assert values["data_share"] == 1.0
    order = DISTRIBUTIONS["order_mean"]
    assert isinstance(order, FloatDistribution)
    assert order.low <= values["order_mean"] <= order.high


@EXAMPLES
@given(schedules())
def test_any_schedule_is_drawn(schedule: Schedule) -> None:
    shown = _text(terminal_drawing(schedule))
    assert shown.count("●") == schedule.nfe
    assert "…" not in _text(terminal_drawing(schedule), width=80)
    assert [line.t for line in time_lines(schedule)] == list(schedule.times)
    assert compare_schedules(schedule, schedule).same
    assert len(schedule_figure(schedule).axes) == 2


def test_guidance_and_blocks_left_out_are_drawn_at_their_calls(tmp_path: Path) -> None:
    plain = published.unipc(edm(), nfe=4)
    patch = {
        "guidance_scale": (1.0, 2.5, 3.0, 2.0),
        "skip_layers": ((), (4, 1, 2, 3), (7,), ()),
        "skip_scale": (1.1, 0.9),
    }
    schedule = _changed(plain, model_patch=patch)
    networks = [line.network for line in time_lines(schedule)]
    assert networks == [
        "guidance 1",
        "guidance 2.5, without 1-4",
        "guidance 3, without 7",
        "guidance 2",
        "",
    ]
    shown = _text(terminal_drawing(schedule))
    assert "● guidance 2.5, without 1-4" in shown
    assert "skip connections scaled by 1.1 0.9" in shown
    levels, guidance, blocks, strip = schedule_figure(schedule).axes
    assert list(guidance.lines[0].get_ydata()) == [1.0, 2.5, 3.0, 2.0]
    assert [bar.get_height() for bar in blocks.patches] == [0, 4, 1, 0, 0]
    assert len(strip.patches) == 4
    assert levels.get_ylabel() == "sigma / alpha"
    draw_schedule(schedule, tmp_path / "patched.png")
    assert (tmp_path / "patched.png").read_bytes().startswith(_PNG)
    found = compare_schedules(plain, schedule)
    assert (found.elsewhere, found.n_different_steps) == (("model_patch",), 0)
    assert [pair.is_same for pair in found.pairs] == [False] * 4 + [True]


def test_a_v3_step_and_a_long_schedule_are_drawn(tmp_path: Path) -> None:
    first = published.ddim(edm(), nfe=3)
    steps = [
        step.model_copy(
            update={"predictor": step.predictor.model_copy(update={"prediction": Prediction.V3})}
        )
        for step in first.steps
    ]
    v3 = _changed(first, steps=steps, statistics={"digest": "0" * 32})
    assert "Taylor, v3, order 1" in _text(terminal_drawing(v3))
    draw_schedule(v3, tmp_path / "v3.png")
    draw_schedule(published.ddim(edm(), nfe=300), tmp_path / "long.png")
    for name in ("v3", "long"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(_PNG)


def test_two_grids_are_as_far_apart_as_their_curves() -> None:
    """lam is -log(t) for edm, so the distances are those of logarithms."""
    first = published.ddim(edm(), nfe=3)
    one = _changed(first, times=(8.0, 4.0, 1.0, 0.5))
    other = _changed(first, times=(8.0, 2.0, 1.0, 0.0))
    found = compare_schedules(one, other)
    assert [pair.same_time for pair in found.pairs] == [True, False, True, False]
    assert found.largest == pytest.approx(math.log(2.0))
    assert found.largest_at == pytest.approx(1 / 3)
    assert found.mean == pytest.approx(math.log(2.0) / 3)  # a clean end has no part in it
    fewer = _changed(first, times=(8.0, 0.5), steps=first.steps[:1])
    found = compare_schedules(one, fewer)  # straight from 8 to 0.5: a factor 16^(1/3) a step
    assert found.largest == pytest.approx(math.log(4.0 / (8.0 / 16 ** (1 / 3))))
    assert found.n_different_steps == 2
    assert [pair.step_differences for pair in found.pairs] == [(), ("",), ("",), ()]
    assert [line is None for pair in found.pairs for line in pair.lines[1:]] == [
        False,
        False,
        True,
        True,
    ]


def test_other_processes_are_compared_by_their_noise() -> None:
    first = published.dpmpp_2m(edm(), nfe=4, spacing="logsnr")
    process = vp_linear()
    times = [process.time_of_lam(line.lam) for line in time_lines(first)]
    other = Schedule(process=process, times=times, steps=first.steps)
    found = compare_schedules(first, other)
    assert found.elsewhere == ("process",)
    assert found.largest == pytest.approx(0.0, abs=1e-9)
    assert all(pair.is_same for pair in found.pairs)
    noisy = published.ddim(flow(), nfe=1, spacing="uniform")  # from pure noise to the clean end
    assert compare_schedules(noisy, first).largest is None


def test_differences_that_no_word_tells_are_named(tmp_path: Path) -> None:
    one = as_coefficients(published.dpmpp_2m(edm(), nfe=3))
    middle = one.steps[1].predictor
    assert isinstance(middle, Free)
    changed = middle.model_copy(update={"q": (0.1, 0.2), "carries": False})
    steps = (one.steps[0], one.steps[1].model_copy(update={"predictor": changed}), one.steps[2])
    other = _changed(one, steps=steps)
    found = compare_schedules(one, other)
    assert found.pairs[1].step_differences == ("predictor.q", "predictor.carries")
    names = ("one.json", "other.json")
    shown = _text(comparison_drawing(found, (one, other), names))
    assert "the same but for predictor.q, predictor.carries" in shown
    assert "steps: 1 of 3 differ" in shown
    assert "times: the same curve" in shown
    assert [line.startswith("≠") for line in shown.splitlines()[3:7]] == [
        False,
        True,
        False,
        False,
    ]
    draw_comparison((one, other), names, tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes().startswith(_PNG)
    same = _text(comparison_drawing(compare_schedules(one, one), (one, one), names))
    assert "the same schedule" in same
