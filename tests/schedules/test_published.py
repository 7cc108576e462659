"""Published solvers as schedules: calls, orders, grids and the schedules they make."""

from itertools import pairwise

import pytest

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.rules import Taylor
from s3search.schedules import published
from s3search.schedules.spacing import End, EndRule, Spacing, grid
from s3search.solvers.plan import compile_plan
from tests.support.helpers import PROCESSES

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


@_EACH
@pytest.mark.parametrize("nfe", [1, 2, 5, 8])
def test_baselines_make_exactly_the_calls_asked_for(process: NoiseProcess, nfe: int) -> None:
    found = published.baselines(process, nfe, ends=[End(), End(rule=EndRule.DENOISE)])
    assert found
    for name, schedule in found.items():
        assert compile_plan(schedule).nfe == schedule.nfe == nfe, name


@_EACH
@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("rule", list(EndRule))
def test_grid_falls_from_the_noisy_end_to_its_end(
    process: NoiseProcess, spacing: Spacing, rule: EndRule
) -> None:
    times = grid(process, 6, spacing, End(rule=rule, sigma=0.05))
    assert len(times) == 7
    assert list(times) == sorted(times, reverse=True)
    assert times[0] == process.time_range[1]
    last = times[-1] if rule is EndRule.STOP else times[-2]
    assert process.sigma(last) / process.alpha(last) == pytest.approx(0.05, rel=1e-9)
    assert (times[-1] == process.clean_time) == (rule is EndRule.DENOISE)


def test_grid_is_equidistant_in_its_quantity() -> None:
    process = vp_linear()
    lams = [process.lam(t) for t in grid(process, 5, "logsnr")]
    gaps = [b - a for a, b in pairwise(lams)]
    assert gaps == pytest.approx([gaps[0]] * 5, rel=1e-9)
    uniform = grid(process, 4, "uniform")
    assert uniform == pytest.approx([1.0, 0.75025, 0.5005, 0.25075, 0.001])
    karras = grid(edm(), 3, "karras")
    roots = [sigma ** (1 / 7) for sigma in karras]
    assert roots[0] - roots[1] == pytest.approx(roots[2] - roots[3], rel=1e-9)


def test_grids_refuse_impossible_ends() -> None:
    with pytest.raises(InvalidSchedule, match="end"):
        grid(edm(), 4, "karras", End(sigma=100.0))
    with pytest.raises(InvalidSchedule, match="at least one step"):
        grid(edm(), 0, "karras")


@pytest.mark.parametrize(
    ("nfe", "order", "orders"),
    [
        (6, 3, (3, 2, 1)),
        (7, 3, (3, 3, 1)),
        (8, 3, (3, 3, 2)),
        (5, 2, (2, 2, 1)),
        (4, 2, (2, 2)),
        (3, 1, (1, 1, 1)),
    ],
)
def test_singlestep_orders_spend_every_call(nfe: int, order: int, orders: tuple[int, ...]) -> None:
    assert published.singlestep_orders(nfe, order) == orders


def test_short_multistep_runs_end_at_low_order() -> None:
    def orders(n: int, lower: bool | None = None) -> list[int]:
        rules = [
            step.predictor
            for step in published.dpm_multistep_steps(n, order=3, lower_order_final=lower)
        ]
        return [rule.order for rule in rules if isinstance(rule, Taylor)]

    assert orders(5) == [1, 2, 3, 2, 1]
    assert orders(10) == [1, 2] + [3] * 8
    assert orders(5, False) == [1, 2, 3, 3, 3]
    assert orders(10, True) == [1, 2, *[3] * 6, 2, 1]


def test_heun_refuses_an_nfe_it_cannot_make() -> None:
    assert published.heun(edm(), nfe=5).nfe == 5
    with pytest.raises(InvalidSchedule, match="odd"):
        published.heun(edm(), nfe=4)
    with pytest.raises(InvalidSchedule, match="infinite"):
        published.heun(flow(), nfe=5)


@pytest.mark.parametrize("order", [0, 4])
def test_multistep_solvers_name_their_orders(order: int) -> None:
    with pytest.raises(InvalidSchedule, match="orders 1 to 3"):
        published.dpm_multistep_steps(5, order=order)


def test_steps_on_times_adapt_to_the_ends() -> None:
    ends_clean = published.on_times(
        vp_discrete("linear"), [999.0, 500.0, 200.0, -1.0], published.unipc_steps(3, order=3)
    )
    assert ends_clean.steps[-1].predictor == published.ddim_steps(1)[0].predictor
    from_noise = published.unipc(flow(), nfe=5)
    assert from_noise.steps[0].corrector is None
    assert from_noise.steps[1].corrector is not None
