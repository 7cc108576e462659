"""Free steps: the formula, what they carry, and what they refuse."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3search import Schedule, compile_plan
from s3search.errors import InvalidSchedule
from s3search.processes import edm, vp_linear
from s3search.rules import Free, Taylor, level
from s3search.rules.free import euler
from s3search.rules.points import Prediction
from s3search.schedules.schedule import Start, StartKind, Step, json_schema
from tests.support.helpers import EXAMPLES, PROCESSES, exact_trajectory, max_abs

_VP = vp_linear()
_ONE_STEP = {
    "format": "s3search.schedule",
    "version": 1,
    "process": {"type": "flow"},
    "times": [1.0, 0.5],
    "steps": [{"predictor": {"rule": "free", "p": [[-1, 0.5]], "q": [0.5]}}],
}


def _with(**predictor: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(_ONE_STEP))
    data["steps"][0]["predictor"].update(predictor)
    return data


def test_the_state_is_the_sum_that_the_coefficients_say() -> None:
    run, to = exact_trajectory(_VP, [0.9, 0.7, 0.5]), level(_VP, 0.3)
    rule = Free(p=((-3, 0.2), (-1, 0.3)), q=(-0.5, 1.25), carries=False)
    expected = 0.2 * run.states[0] + 0.3 * run.states[2] - 0.5 * run.answers[1]
    expected = expected + 1.25 * run.answers[2]
    assert max_abs(run.next_state(rule, to) - expected) < 1e-15


@given(
    st.sampled_from(sorted(PROCESSES)),
    st.floats(0.1, 0.9),
    st.sampled_from([0.9, 0.5, 0.0, 1.0]),
)
@EXAMPLES
def test_euler_is_ddim_and_stands_still_at_one_level(
    name: str, where: float, share: float
) -> None:
    process = PROCESSES[name]
    low, high = process.time_range
    first = low + where * (high - low)
    last = process.clean_time if share == 0.0 else low + share * (first - low)
    start, to = level(process, first), level(process, last)
    rule = euler(start, to)
    assert rule.problem([start], to) is None
    run = exact_trajectory(process, [first])
    if share == 1.0:
        assert rule == Free(p=((-1, 1.0),), q=(0.0,))
    ddim = run.next_state(Taylor(prediction=Prediction.DATA, order=1), to)
    assert max_abs(run.next_state(rule, to) - ddim) <= 1e-13 * process.sigma(first)


def test_coefficients_that_lose_noise_or_image_are_refused_unless_they_say_so() -> None:
    for field, change in (("p", {"p": [[-1, 0.4]]}), ("q", {"q": [0.4]})):
        with pytest.raises(
            InvalidSchedule, match=rf"^steps\[0\].predictor.{field}: does not carr"
        ):
            Schedule.from_dict(_with(**change))
        schedule = Schedule.from_dict(_with(**change, carries=False))
        assert compile_plan(schedule).n_rows == 2


def test_a_free_step_to_the_clean_end() -> None:
    data = _with(p=[], q=[1.0])
    data["times"] = [1.0, 0.0]
    plan = compile_plan(Schedule.from_dict(data))
    assert plan.levels[-1].sigma == 0.0
    assert plan.q[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": [], "q": []}, r"steps\[0\].predictor: a free step needs at least one"),
        ({"p": [[-2, 0.5]]}, r"steps\[0\].predictor.p: point -2 does not exist"),
        ({"p": [[0, 0.5]]}, r"steps\[0\].predictor.p: point 0 does not exist"),
        ({"p": [[-1, 0.25], [-1, 0.25]]}, r"steps\[0\].predictor.p: .* twice"),
        ({"p": [[-1, True]]}, r"steps\[0\].predictor.p\[0\]\[1\]: "),
        ({"p": [[-1.0, 0.5]]}, r"steps\[0\].predictor.p\[0\]\[0\]: "),
        ({"p": [[-1]]}, r"steps\[0\].predictor.p\[0\]\[1\]: "),
        ({"q": [0.5, 0.0]}, r"steps\[0\].predictor.q: 2 coefficients of predictions, .* holds 1"),
        ({"q": [math.inf]}, r"steps\[0\].predictor.q\[0\]: "),
        ({"q": [math.nan]}, r"steps\[0\].predictor.q\[0\]: "),
        ({"q": ["0.5"]}, r"steps\[0\].predictor.q\[0\]: "),
        ({"carries": 1}, r"steps\[0\].predictor.carries: "),
        ({"cary": True}, r"steps\[0\].predictor.cary: unknown key"),
    ],
)
def test_what_a_free_step_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSchedule, match=f"^{message}"):
        Schedule.from_dict(_with(**change))


def test_json_keeps_every_bit_and_the_id_depends_on_every_coefficient() -> None:
    schedule = Schedule.from_dict(_ONE_STEP)
    again = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert again.id == schedule.id
    other = Schedule.from_dict(_with(q=[math.nextafter(0.5, 1.0)]))
    assert other.id != schedule.id
    assert Schedule.from_dict(_with(carries=False)).id != schedule.id
    definition = json_schema()["$defs"]["Free"]
    assert definition["properties"]["rule"]["const"] == "free"
    assert definition["required"] == ["rule"]


def test_the_network_may_be_told_another_time() -> None:
    """A free step's invariants speak of D; the time told does not enter."""
    process, times = edm(), (80.0, 5.0, 1.0)
    levels = [level(process, t) for t in times]
    schedule = Schedule(
        process=process,
        times=times,
        start=Start(network_time=70.0),
        steps=(
            Step(predictor=euler(levels[0], levels[1]), network_time=4.0),
            Step(predictor=Free(p=((-2, 1.0 / 80.0),), q=(0.3, 0.7 - 1.0 / 80.0))),
        ),
    )
    plan = compile_plan(schedule)
    assert plan.network_times == (70.0, 4.0)
    assert plan.q[2].tolist() == [0.3, 0.7 - 1.0 / 80.0]


def test_an_analytic_prediction_is_written_out() -> None:
    """unit_noise: D_0 is a multiple of x_0, which joins the coefficient of the state."""
    process = vp_linear()
    first, to = level(process, 0.9), level(process, 0.5)
    rule = euler(first, to)
    schedule = Schedule(
        process=process,
        times=(0.9, 0.5, 0.2),
        start=Start(kind=StartKind.UNIT_NOISE),
        steps=(Step(predictor=rule), Step(predictor=euler(to, level(process, 0.2)))),
    )
    plan = compile_plan(schedule)
    guess = (1.0 - first.sigma / math.hypot(first.alpha, first.sigma)) / first.alpha
    assert plan.nfe == 1
    assert plan.p[1, 0] == pytest.approx(rule.p[0][1] + rule.q[0] * guess, rel=1e-14)


def test_scaled_states_make_the_same_step() -> None:
    rule = Free(p=((-2, 0.5), (-1, 2.0)), q=(1.0, -3.0), carries=False)
    scaled = rule.scaled([4.0, 0.5], 2.0)
    assert scaled == Free(p=((-2, 0.25), (-1, 8.0)), q=(2.0, -6.0), carries=False)
