"""Steps of the reverse SDE: their limit without noise, their variance, and what is refused."""

import math

import numpy as np
import pytest

from s3search.errors import InvalidSchedule
from s3search.processes import Flow, NoiseProcess, VpLinear, edm
from s3search.rules import (
    Derivative,
    NoiseKind,
    Prediction,
    Relaxation,
    RelaxationKind,
    SdeTaylor,
    StepNoise,
)
from s3search.schedules import published
from s3search.schedules.schedule import Corrector, Schedule, Step
from s3search.schedules.spacing import grid
from s3search.solvers.plan import Plan, compile_plan

_PROCESSES: list[NoiseProcess] = [edm(), VpLinear(), Flow()]
_KINDS = (NoiseKind.SDE, NoiseKind.ETA, NoiseKind.FLOW_ETA, NoiseKind.GAMMA)


def _schedule(process: NoiseProcess, steps: tuple[Step, ...]) -> Schedule:
    times = grid(process, len(steps), "logsnr" if not isinstance(process, Flow) else "uniform")
    return published.on_times(process, times, steps)


def deviation(schedule: Schedule, plain: Schedule) -> float:
    """The largest difference of a coefficient, of the size of the coefficients."""
    own, other = compile_plan(schedule), compile_plan(plain)
    size = max(float(np.abs(other.p).max()), float(np.abs(other.q).max()))
    found = max(float(np.abs(own.p - other.p).max()), float(np.abs(own.q - other.q).max()))
    return found / size


def sources(plan: Plan) -> np.ndarray:
    """The weight of every draw (R,) in every state (R,), for data that are one image."""
    found = np.zeros((plan.n_rows, plan.n_rows))
    found[0, 0] = plan.noise_scale
    for r in range(1, plan.n_rows):
        found[r] = plan.p[r, :r] @ found[:r]
        found[r, r] += plan.noise[r]
    return found


@pytest.mark.parametrize("process", _PROCESSES[:2], ids=lambda process: process.type)
@pytest.mark.parametrize("prediction", [Prediction.DATA, Prediction.NOISE])
@pytest.mark.parametrize("variant", published.SdeVariant)
@pytest.mark.parametrize("eta", [0.0, 1e-14])
def test_without_noise_it_is_the_deterministic_solver(
    process: NoiseProcess, prediction: Prediction, variant: published.SdeVariant, eta: float
) -> None:
    noise = published.sde_noise(eta)
    for order in (1, 2) if variant is published.SdeVariant.MIDPOINT else (2, 3):
        steps = published.sde_steps(
            6, order=order, prediction=prediction, noise=noise, variant=variant
        )
        rules = [step.predictor for step in steps]
        plain = [Step(predictor=rule.plain) for rule in rules if isinstance(rule, SdeTaylor)]
        own, other = (_schedule(process, tuple(each)) for each in (steps, plain))
        assert deviation(own, other) < 1e-12
        assert own.is_stochastic == (eta > 0.0)


def test_2m_and_3m_without_noise_are_dpm_solver_pp() -> None:
    for order, variant in ((2, "midpoint"), (3, "heun")):
        noise = published.sde_noise(0.0)
        own = published.sde_steps(6, order=order, noise=noise, variant=variant)
        plain = published.dpm_multistep_steps(6, order=order, lower_order_final=False)
        if order == 3:  # whose second step is k-diffusion's own
            own, plain = own[2:], plain[2:]
        assert [step.predictor.plain for step in own] == [step.predictor for step in plain]  # type: ignore[attr-defined]


def test_dpmpp_sde_without_noise_is_dpm_solver_pp_2s() -> None:
    process, outer = VpLinear(), (1.0, 0.6, 0.3, 0.1)
    own = published.dpmpp_sde_on(process, outer, 0.0)
    plain = published.singlestep_on(process, outer, (2, 2, 2), "logsnr")
    np.testing.assert_allclose(own[0], plain[0], rtol=1e-12)
    first, second = (
        Schedule(process=process, times=own[0], steps=each[1]) for each in (own, plain)
    )
    assert deviation(first, second) < 1e-12
    assert not first.is_stochastic


def test_dpmpp_sde_draws_for_each_of_its_two_calls() -> None:
    schedule = published.dpmpp_sde(edm(), nfe=7, eta=0.6)
    plan = compile_plan(schedule)
    assert (schedule.nfe, plan.noisy_rows) == (7, (1, 2, 3, 4, 5, 6))
    for r, weights in enumerate(sources(plan)):
        assert np.linalg.norm(weights) == pytest.approx(plan.levels[r].sigma, rel=1e-9, abs=1e-12)
    with pytest.raises(
        InvalidSchedule, match="dpmpp_sde with end rule 'denoise' needs an odd nfe"
    ):
        published.dpmpp_sde(edm(), nfe=6)


@pytest.mark.parametrize("prediction", [Prediction.DATA, Prediction.NOISE])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_seeds_without_noise_are_singlestep_dpm_solvers(
    order: int, prediction: Prediction
) -> None:
    process, outer = VpLinear(), (1.0, 0.6, 0.3, 0.1)
    noise = published.sde_noise(0.0)
    own = published.seeds_on(process, outer, order, prediction=prediction, noise=noise)
    plain = published.singlestep_on(process, outer, (order,) * 3, "logsnr", prediction=prediction)
    np.testing.assert_allclose(own[0], plain[0], rtol=1e-12)
    first, second = (
        Schedule(process=process, times=own[0], steps=each[1]) for each in (own, plain)
    )
    assert deviation(first, second) < 1e-12


@pytest.mark.parametrize("process", _PROCESSES[:2], ids=lambda process: process.type)
def test_seeds_keep_the_variance_of_every_level(process: NoiseProcess) -> None:
    for schedule in (
        published.seeds_2(process, nfe=9, eta=0.6, r=0.3),
        published.seeds_3(process, nfe=10),
    ):
        plan = compile_plan(schedule)
        assert len(plan.noisy_rows) == schedule.nfe - 1
        for r, weights in enumerate(sources(plan)):
            own = np.linalg.norm(weights)
            assert own == pytest.approx(plan.levels[r].sigma, rel=1e-9, abs=1e-12)
    with pytest.raises(
        InvalidSchedule, match="SEEDS-3 makes 3 network calls a step and one more, a"
    ):
        published.seeds_3(process, nfe=9)


@pytest.mark.parametrize("process", _PROCESSES, ids=lambda process: process.type)
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_every_state_has_the_variance_of_its_level(
    process: NoiseProcess, kind: NoiseKind, order: int
) -> None:
    noise = StepNoise(kind=kind, amount=0.6)
    plan = compile_plan(_schedule(process, published.sde_steps(5, order=order, noise=noise)))
    assert len(plan.noisy_rows) >= 4
    for r, weights in enumerate(sources(plan)):
        assert np.linalg.norm(weights) == pytest.approx(plan.levels[r].sigma, rel=1e-9, abs=1e-12)


def test_a_first_order_step_is_ddim_with_its_noise() -> None:
    process, noise = edm(), published.sde_noise(0.7, 1.01)
    own = published.sde_steps(5, order=1, noise=noise)
    plain = [Step(predictor=step.predictor, noise=noise) for step in published.ddim_steps(5)]
    assert deviation(_schedule(process, own), _schedule(process, tuple(plain))) < 1e-12
    plans = [compile_plan(_schedule(process, tuple(each))) for each in (own, plain)]
    np.testing.assert_allclose(plans[0].noise, plans[1].noise, rtol=1e-12)


def _path(noise: StepNoise, prediction: Prediction) -> Schedule:
    """First-order steps from 8 to 1, of which those past an inner point put its noise together."""
    steps = [
        Step(predictor=SdeTaylor(prediction=prediction, order=1, start=start, noise=noise, **more))
        for start, more in ((-1, {}), (-2, {"along_path": True}), (-3, {"along_path": True}))
    ]
    last = Step(predictor=published.ddim_steps(1)[0].predictor)
    return Schedule(process=edm(), times=(8.0, 4.0, 2.0, 1.0, 0.0), steps=[*steps, last])


@pytest.mark.parametrize("prediction", [Prediction.DATA, Prediction.NOISE])
def test_the_draws_of_a_path_add_up_to_one_of_the_whole_step(prediction: Prediction) -> None:
    noise = published.sde_noise(0.8, 1.1)
    plan = compile_plan(_path(noise, prediction))
    rule = SdeTaylor(prediction=prediction, order=1, noise=noise)
    times, steps = (8.0, 1.0, 0.0), (Step(predictor=rule), *published.ddim_steps(1))
    at_once = compile_plan(Schedule(process=edm(), times=times, steps=steps))
    own, other = sources(plan)[3], sources(at_once)[1]
    assert own[0] == pytest.approx(other[0], rel=1e-12)
    assert np.count_nonzero(np.abs(own[1:]) > 1e-3) == 3
    assert np.linalg.norm(own[1:]) == pytest.approx(other[1], rel=1e-12)


def test_a_corrector_uses_the_draw_of_its_predictor() -> None:
    noise = published.sde_noise(0.5)
    rule = SdeTaylor(prediction=Prediction.DATA, order=1, noise=noise)
    corrector = rule.corrector()
    assert (corrector.order, corrector.start, corrector.noise) == (2, -2, noise)
    step = Step(predictor=rule, corrector=Corrector(rule=corrector))
    times = (8.0, 4.0, 2.0, 0.0)
    schedule = Schedule(process=edm(), times=times, steps=[step, step, *published.ddim_steps(1)])
    plan = compile_plan(schedule)
    assert plan.noisy_rows == (1, 3)
    for r, weights in enumerate(sources(plan)):
        assert np.linalg.norm(weights) == pytest.approx(plan.levels[r].sigma, rel=1e-9)


def test_a_step_whose_noise_is_all_new_has_a_value() -> None:
    """Ancestral steps with an eta that the target's variance caps go down to the clean end."""
    half = Derivative(points=(-2,), relaxation=Relaxation(kind=RelaxationKind.DPMSOLVER_2))
    noise = StepNoise(kind=NoiseKind.ETA, amount=1.3)
    rule = SdeTaylor(prediction=Prediction.DATA, order=2, derivatives=(half,), noise=noise)
    first = published.sde_steps(1, order=1)
    schedule = Schedule(
        process=edm(),
        times=(8.0, 4.0, 0.5, 0.0),
        steps=[*first, Step(predictor=rule), *published.ddim_steps(1)],
    )
    plan = compile_plan(schedule)
    h, before = math.log(4.0 / 0.5), math.log(8.0 / 4.0)
    np.testing.assert_allclose(plan.p[2, :2], 0.0, atol=1e-11)
    expected = [-0.5 * h / before, 1.0 + 0.5 * h / before]
    np.testing.assert_allclose(plan.q[2, :2], expected, rtol=1e-11)
    assert plan.noise[2] == pytest.approx(0.5)


def test_its_json_comes_back() -> None:
    schedule = published.dpmpp_2m_sde(edm(), nfe=5, eta=0.6, s_noise=1.02, variant="heun")
    data = schedule.to_dict()
    assert data["version"] == 2
    assert data["steps"][2]["predictor"]["noise"] == {"kind": "sde", "amount": 0.6, "scale": 1.02}
    assert Schedule.from_dict(data) == schedule


def test_it_says_its_noise_and_its_relaxations() -> None:
    schedule = published.dpmpp_2m_sde(edm(), nfe=5, eta=0.5, s_noise=1.02)
    assert schedule.steps[2].predictor.details == "sde 0.5, s_noise 1.02, dpmsolver-2"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prediction": "v3"}, "an SDE step extrapolates 'noise' or 'data'"),
        ({"noise": {"kind": "time", "amount": 1.0}}, "has an amount of noise, not a time"),
        ({"noise": {"kind": "eta"}, "prediction": "noise"}, "the noise prediction needs 'sde'"),
        ({"noise": {"kind": "eta"}, "along_path": True}, "a path needs 'sde', found 'eta'"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SdeTaylor.model_validate({"prediction": "data", "order": 1, **fields})


def test_the_clean_end_has_no_room_for_noise() -> None:
    rule = SdeTaylor(prediction=Prediction.DATA, order=1)
    with pytest.raises(
        InvalidSchedule, match=r"steps\[0\].predictor.noise.kind: a step to the cl"
    ):
        Schedule(process=edm(), times=(8.0, 0.0), steps=[Step(predictor=rule)])


def test_an_endless_first_step_needs_data() -> None:
    rule = SdeTaylor(prediction=Prediction.NOISE, order=1)
    with pytest.raises(
        InvalidSchedule, match="has no value above order 1 for a step that touches"
    ):
        Schedule(process=Flow(), times=(1.0, 0.5), steps=[Step(predictor=rule)])
    data = Step(predictor=SdeTaylor(prediction=Prediction.DATA, order=1))
    plan = compile_plan(Schedule(process=Flow(), times=(1.0, 0.5), steps=[data]))
    np.testing.assert_allclose((plan.p[1, 0], plan.q[1, 0], plan.noise[1]), (0.0, 0.5, 0.5))
