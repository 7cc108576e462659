"""Plans with v3 steps: weights per pixel, the statistics they name, and what they equal."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.processes import edm, vp_linear
from s3search.rules import EmsStatistics, Prediction, Taylor, UniPC, Variant
from s3search.schedules import published
from s3search.schedules.published.common import on_times
from s3search.schedules.retime import retime
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    Schedule,
    Start,
    StartKind,
    StatisticsReference,
    Step,
)
from s3search.schedules.spacing import End, EndRule
from s3search.solvers.plan import PlanBatch, check_table, compile_plan, compile_plans
from s3search.solvers.sample import run_plan, sample
from tests.support.dpm_v3 import WrittenOutV3
from tests.support.helpers import PROCESSES, SHAPE, gaussian, max_abs, noise


def _ems(n: int = 120) -> EmsStatistics:
    """Smooth statistics that differ at every pixel."""
    lam = np.linspace(vp_linear().lam(1.0), vp_linear().lam(1e-3), n + 1)
    lam = lam[:, None, None, None]
    pixel = np.linspace(0.0, 1.0, 4).reshape(SHAPE)
    return EmsStatistics(
        lam_start=float(lam[0, 0, 0, 0]),
        lam_end=float(lam[-1, 0, 0, 0]),
        l=1 / (1 + np.exp(lam + pixel)),
        s=0.2 * np.sin(lam) - 0.3 * pixel,
        b=0.1 * np.cos(lam - pixel),
    )


def _schedule(ems: EmsStatistics, **options: Any) -> Schedule:
    return published.dpm_solver_v3(vp_linear(), ems, nfe=6, **options)


def _table_end(
    table: dict[str, Any], network: Callable[[Tensor, float], Tensor], x: Tensor
) -> Any:
    """A runtime that knows only the portable table."""
    states, answers = [x * table["noise_scale"]], []
    for r, row in enumerate(table["rows"]):
        if r:
            new = torch.zeros_like(x)
            for weight, value in zip(row["p"] + row["q"], states + answers, strict=True):
                new = new + torch.tensor(weight, dtype=x.dtype) * value
            if table["image"] is not None:
                new = new + row["constant"] * torch.tensor(table["image"], dtype=x.dtype)
            new = new + torch.tensor(row.get("offset", 0.0), dtype=x.dtype)
            states.append(new)
        if row["network_time"] is not None:
            answers.append(network(states[-1], row["network_time"]))
    return states[-1]


@pytest.mark.parametrize("kind", [StartKind.NETWORK, StartKind.UNIT_NOISE, StartKind.AVERAGE_X0])
def test_portable_table_makes_the_same_images(kind: StartKind) -> None:
    ems = _ems()
    image = [[[0.3, -0.5], [0.1, 0.8]]] if kind is StartKind.AVERAGE_X0 else None
    made = _schedule(ems)
    made = made.model_copy(update={"start": Start(kind=kind, image=image)})
    plan, denoiser, z = compile_plan(made, ems), gaussian(vp_linear()), noise()
    table = json.loads(json.dumps(plan.to_dict()))

    def network(x: Tensor, t: float) -> Tensor:
        return denoiser(x, torch.full((len(x),), t, dtype=x.dtype))

    assert max_abs(_table_end(table, network, z) - sample(denoiser, plan, z)) < 1e-13
    check_table(made, table, ems)
    table["rows"][3]["offset"][0][1][1] += 1e-3
    with pytest.raises(InvalidSchedule, match="not what these steps compile to"):
        check_table(made, table, ems)


def test_degenerate_statistics_are_dpm_solver_pp_but_for_the_trapezoid_rule() -> None:
    process, z = vp_linear(), noise()
    times = [process.time_of_lam(lam) for lam in (-4.0, -2.0, 0.0, 2.0, 4.0)]
    denoiser = gaussian(process)
    steps = tuple(
        Step(predictor=Taylor(prediction=Prediction.DATA, order=o)) for o in (1, 2, 3, 2)
    )
    exact = sample(denoiser, compile_plan(on_times(process, times, steps)), z)
    v3 = tuple(Step(predictor=Taylor(prediction=Prediction.V3, order=o)) for o in (1, 2, 3, 2))
    errors = []
    for n in (120, 240, 480):
        ems = EmsStatistics.degenerate(-4.0, 4.0, n)
        made = on_times(process, times, v3, statistics=StatisticsReference(digest=ems.digest))
        errors.append(max_abs(sample(denoiser, compile_plan(made, ems), z) - exact))
    assert errors[-1] < 1e-4 * max_abs(exact)
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert slopes == pytest.approx([2.0, 2.0], abs=0.05)


def test_published_v3_stands_on_nodes_and_corrects_all_but_the_last_step() -> None:
    ems = _ems()
    made = _schedule(ems, order=3)
    places = [(vp_linear().lam(t) - ems.lam_start) * 120 for t in made.times]
    places = [p / (ems.lam_end - ems.lam_start) for p in places]
    assert places == pytest.approx(np.round(places), abs=1e-9)
    assert [step.predictor.order for step in made.steps] == [1, 2, 3, 3, 2, 1]
    orders = [step.corrector.rule.order for step in made.steps if step.corrector is not None]
    assert orders == [2, 3, 4, 4, 3]
    assert made.nfe == 6 == compile_plan(made, ems).nfe
    plain = _schedule(ems, order=3, c_pseudo=False)
    assert [step.corrector is not None for step in plain.steps] == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("p_pseudo", [False, True])
@pytest.mark.parametrize("c_pseudo", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["vp_linear", "vp_discrete", "edm"])
def test_published_v3_is_the_solver_written_out(  # the options of the published call
    order: int, p_pseudo: bool, c_pseudo: bool, half: bool, name: str
) -> None:
    ems, process = _ems(), PROCESSES[name]
    made = published.dpm_solver_v3(
        process,
        ems,
        nfe=7,
        order=order,
        p_pseudo=p_pseudo,
        c_pseudo=c_pseudo,
        half=half,
        spacing="uniform",
        end=End(sigma=0.05, begin=10.0),
    )
    plan = compile_plan(made, ems)
    assert plan.nfe == 7
    middle = 499.0 if name == "vp_discrete" else 0.5  # index i is at t = (i + 1) / 1000
    written_out = WrittenOutV3(
        denoiser=gaussian(process),
        process=process,
        ems=ems,
        order=order,
        p_pseudo=p_pseudo,
        c_pseudo=c_pseudo,
        corrects=lambda t: t > middle or not half,
    )
    x = noise() * plan.levels[0].sigma
    end = run_plan(gaussian(process), plan, x)
    assert max_abs(end - written_out.run(made.times, x)) < 1e-10 * max_abs(end)


def test_half_corrects_the_noisier_times_alone() -> None:
    made = _schedule(_ems(), half=True)
    corrected = [step.corrector is not None for step in made.steps]
    ends = [t > 0.5 for t in made.times[1:]]
    assert corrected == ends
    assert 0 < sum(corrected) < 5


def test_published_v3_with_the_denoise_end_returns_the_last_call() -> None:
    ems = _ems()
    made = _schedule(ems, end=End(rule=EndRule.DENOISE, sigma=0.05))
    assert made.nfe == 6
    assert made.times[-1] == 0.0
    assert compile_plan(made, ems).q[-1].tolist() == [0, 0, 0, 0, 0, 1]


def test_too_few_nodes_are_refused() -> None:
    with pytest.raises(InvalidSchedule, match="share node"):
        _schedule(_ems(n=4))


def test_step_inside_one_interval_leaves_the_image_where_it_is() -> None:
    """As in USF's code: nothing is integrated, so x / alpha stays."""
    ems, process = _ems(n=12), vp_linear()
    lams = [ems.lams[1], *(float(ems.lams[3]) + d for d in (-0.2, 0.2, 0.3))]
    times = [process.time_of_lam(lam) for lam in lams]
    steps = [Step(predictor=Taylor(prediction=Prediction.V3, order=o)) for o in (1, 2, 3)]
    reference = StatisticsReference(digest=ems.digest)
    ends = []
    for n in (1, 2, 3):
        made = on_times(process, times[: n + 1], steps[:n], statistics=reference)
        plan = compile_plan(made, ems)
        assert plan.nfe == n
        ends.append(sample(gaussian(process), plan, noise()) / plan.levels[-1].alpha)
    assert max_abs(ends[1] - ends[0]) < 1e-14 * max_abs(ends[0])
    assert max_abs(ends[2] - ends[0]) < 1e-14 * max_abs(ends[0])


def test_schedule_names_its_statistics() -> None:
    ems = _ems()
    made = _schedule(ems)
    again = Schedule.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert again.id == made.id
    assert made.to_dict()["statistics"] == {"kind": "ems", "digest": ems.digest}
    named = {"kind": "ems", "digest": "0" * 32}
    other = Schedule.from_dict({**made.to_dict(), "statistics": named})
    assert other.id != made.id
    with pytest.raises(IncompatibleStatistics, match=r"^statistics: the schedule needs ems"):
        compile_plan(made)
    with pytest.raises(IncompatibleStatistics, match=r"^statistics: .* belong to one model"):
        compile_plan(made, _ems(n=60))


def test_statistics_are_named_if_and_only_if_a_step_needs_them() -> None:
    made = _schedule(_ems())
    wire = made.to_dict()
    del wire["statistics"]
    with pytest.raises(InvalidSchedule, match=r"^steps\[0\]\.predictor: a v3 step needs"):
        Schedule.from_dict(wire)
    plain = published.ddim(vp_linear(), nfe=3).to_dict()
    assert "statistics" not in plain
    with pytest.raises(InvalidSchedule, match=r"^statistics: no step uses them"):
        Schedule.from_dict({**plain, "statistics": {"digest": "0" * 32}})
    v3 = Taylor(prediction=Prediction.V3, order=2, start=-2, derivatives=[{"points": (-1,)}])
    corrected = Step(
        predictor=UniPC(prediction=Prediction.DATA, variant=Variant.BH2),
        corrector=Corrector(kind=CorrectorKind.IMPLICIT, rule=v3),
    )
    with pytest.raises(InvalidSchedule, match=r"^steps\[0\]\.corrector\.rule: a v3 step needs"):
        Schedule(process=edm(), times=(3.0, 2.0, 1.0), steps=(corrected, Step(predictor=v3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_images_keep_their_dtype(dtype: torch.dtype) -> None:
    ems = _ems()
    plan, denoiser = compile_plan(_schedule(ems), ems), gaussian(vp_linear())
    exact = sample(denoiser, plan, noise())
    made = sample(denoiser, plan, noise(dtype=dtype))
    assert made.dtype == dtype
    allowed = 1e-4 if dtype == torch.float32 else 0.1
    assert max_abs(made.double() - exact) < allowed * max_abs(exact)


def test_other_image_shape_is_refused() -> None:
    ems = _ems()
    plan = compile_plan(_schedule(ems), ems)
    with pytest.raises(IncompatibleStatistics, match=r"shape \(1, 2, 2\), the noise has"):
        sample(gaussian(vp_linear()), plan, torch.zeros((2, 3, 2, 2)))


def test_batch_of_plans_refuses_weights_per_pixel() -> None:
    ems = _ems()
    with pytest.raises(IncompatibleStatistics):
        compile_plans([_schedule(ems)])
    with pytest.raises(InvalidSchedule, match="weights per pixel"):
        PlanBatch([compile_plan(_schedule(ems), ems)])


@pytest.mark.parametrize("name", ["edm", "vp_discrete", "flow"])
def test_statistics_survive_a_change_of_process(name: str) -> None:
    ems, source = _ems(), vp_linear()
    target = PROCESSES[name]
    lams = np.linspace(-2.0, 2.5, 7)
    steps = published.dpm_solver_v3_steps(6, order=3)
    made = on_times(
        source,
        [source.time_of_lam(lam) for lam in lams],
        steps,
        statistics=StatisticsReference(digest=ems.digest),
    )
    moved = retime(made, target)
    ends = []
    for one in (made, moved):
        plan = compile_plan(one, ems)
        start = noise() * plan.levels[0].alpha  # x / alpha is the same for both
        end = run_plan(gaussian(one.process), plan, start)
        ends.append(end / plan.levels[-1].alpha)
    assert max_abs(ends[0] - ends[1]) < 1e-9 * max_abs(ends[0])
