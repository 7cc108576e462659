"""Solvers with noise by their names, whole and step by step."""

import pytest

from s3search.processes import edm, vp_linear
from s3search.rules import NoiseKind, Prediction, SdeTaylor, StepNoise
from s3search.schedules import published
from s3search.schedules.describing import solver_name, step_words
from s3search.schedules.noisy_names import noisy_step_name
from s3search.schedules.schedule import Schedule, Step
from s3search.schedules.spacing import End, EndRule

_STOP = End(rule=EndRule.STOP)


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (published.dpmpp_2m_sde(edm(), nfe=5), "SDE-DPM-Solver++(2M), eta 1"),
        (published.dpmpp_2m_sde(vp_linear(), nfe=5, end=_STOP), "SDE-DPM-Solver++(2M), eta 1"),
        (
            published.dpmpp_2m_sde(edm(), nfe=5, eta=0.5, s_noise=1.02, variant="heun"),
            "SDE-DPM-Solver++(2M), heun, eta 0.5, s_noise 1.02",
        ),
        (published.dpmpp_3m_sde(edm(), nfe=6), "SDE-DPM-Solver++(3M), eta 1"),
        (published.sde_dpm_solver(edm(), nfe=5), "SDE-DPM-Solver(2M), eta 1"),
        (published.dpmpp_sde(edm(), nfe=7, eta=0.6), "DPM-Solver++(SDE), eta 0.6"),
        (published.seeds_2(edm(), nfe=7), "SEEDS-2, eta 1"),
        (published.seeds_3(edm(), nfe=7), "SEEDS-3, eta 1"),
        (published.er_sde(edm(), nfe=5), "ER-SDE-3, sde_5"),
        (published.sa_solver(edm(), nfe=5, tau=0.7), "SA-Solver(2, 2), tau 0.7"),
        (
            published.sa_solver(
                edm(), nfe=8, predictor_order=3, corrector_order=4, tau=lambda t: float(t > 1.0)
            ),
            "SA-Solver(3, 4), tau 0 to 1",
        ),
        (published.euler_ancestral(edm(), nfe=4), "Euler + noise eta 1"),
        (published.ddim(edm(), nfe=4, eta=0.5), "DDIM (Euler) + noise eta 0.5"),
    ],
)
def test_solvers_with_noise_are_known_by_their_steps(schedule: Schedule, name: str) -> None:
    assert solver_name(schedule) == name
    assert schedule.describe().startswith(f"{name} at sigmas ")


def test_other_amounts_from_step_to_step_are_no_single_solver_s() -> None:
    plain = published.dpmpp_2m_sde(edm(), nfe=5)
    (other,) = published.sde_steps(1, order=1, noise=published.sde_noise(0.3))
    mixed = plain.changed(steps=(other, *plain.steps[1:]))
    assert solver_name(mixed) is None
    assert "SDE Taylor, data, order 1 (sde 0.3)" in mixed.describe()


def test_restarts_are_no_plain_solver_with_noise() -> None:
    restart = StepNoise(kind=NoiseKind.TIME, amount=1.0)
    (step,) = published.ddim_steps(1)
    noisy = Step(predictor=step.predictor, noise=restart)
    schedule = Schedule(process=edm(), times=(1.0, 8.0, 0.5), steps=(noisy, step))
    assert solver_name(schedule) is None


def test_a_single_step_is_named_by_its_solver() -> None:
    steps = published.dpmpp_3m_sde(edm(), nfe=6, eta=0.5).steps
    words = [step_words(step, edm()) for step in steps]
    assert words[:4] == [
        "SDE-DPM-Solver++, order 1, eta 0.5",
        "SDE-DPM-Solver++(2M), heun, eta 0.5",
        "SDE-DPM-Solver++(3M), eta 0.5",
        "SDE-DPM-Solver++(3M), eta 0.5",
    ]
    odd = SdeTaylor(prediction=Prediction.DATA, order=4)
    assert noisy_step_name(odd) is None
    assert step_words(Step(predictor=odd), edm()) == "SDE Taylor, data, order 4 (sde 1)"
