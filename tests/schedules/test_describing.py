"""Schedules in words: the solver by its name, levels as sigmas, and what it all is tied to."""

import pytest
from matplotlib.figure import Figure

from s3search.processes import edm, flow, vp_linear
from s3search.rules import Free
from s3search.schedules import published
from s3search.schedules.describing import solver_name, step_words
from s3search.schedules.jump import GaussianJump
from s3search.schedules.schedule import Schedule, Start, StatisticsReference, Step
from s3search.schedules.spacing import End, EndRule

_IMAGE = (((0.1, 0.2), (0.3, -0.4)),)
_DENOISE = End(rule=EndRule.DENOISE, sigma=0.1)


def test_a_published_solver_is_named_with_its_sigmas() -> None:
    schedule = published.dpmpp_2m(edm(), nfe=3, end=_DENOISE)
    assert schedule.describe() == (
        "DPM-Solver++(2M) at sigmas 80, 2.83, 0.1: 3 network calls, the last of which makes the "
        "clean image."
    )
    assert repr(schedule) == (
        f"<Schedule {schedule.id[:8]}: edm, 3 network calls, DPM-Solver++(2M)>"
    )
    assert str(schedule) == repr(schedule)


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (published.ddim(vp_linear(), nfe=4), "DDIM (Euler)"),
        (published.unipc(vp_linear(), nfe=5, order=3), "UniPC-3 bh2"),
        (published.ipndm(edm(), nfe=5), "iPNDM"),
        (published.heun(edm(), nfe=5), "Heun"),
        (published.flow_2m(flow(), nfe=4), "flow AB-2"),
    ],
)
def test_solvers_are_known_by_their_steps(schedule: Schedule, name: str) -> None:
    assert solver_name(schedule) == name
    assert schedule.describe().startswith(f"{name} at sigmas ")


def test_mixed_steps_are_told_one_by_one() -> None:
    base = published.dpmpp_2m(edm(), nfe=3)
    free = Step(predictor=Free(p=((-1, 0.2),), q=(0.8,), carries=False))
    mixed = base.model_copy(update={"steps": (*base.steps[:2], free)})
    lines = mixed.describe().splitlines()
    assert lines[0] == (
        "Mixed steps at sigmas 80, 2.34, 0.0684, 0.002: 3 network calls, the image is the state "
        "at the last."
    )
    assert lines[1] == "  80 to 2.34: Taylor, data, order 1"
    assert lines[3].startswith("  0.0684 to 0.002: Free, data, 1 prediction")
    assert repr(mixed).endswith("mixed steps>")


def test_what_a_schedule_is_tied_to_is_said() -> None:
    plain = published.ddim(edm(), nfe=3)
    assert plain.tied_to == ()
    start = Start(kind="average_x0", image=_IMAGE)
    mean = plain.model_copy(update={"start": start})
    assert mean.tied_to == ("the mean image of the data, 1 x 2 x 2",)
    said = mean.describe()
    assert "Start: the first prediction is the mean image of the data, without a call." in said
    assert said.endswith("Tied to the mean image of the data, 1 x 2 x 2.")
    jump = GaussianJump(from_time=90.0, mean=_IMAGE, rest=0.5)
    jumped = plain.model_copy(update={"start": Start(jump=jump)})
    assert jumped.tied_to == ("a Gaussian of the data, 1 x 2 x 2 (its jump)",)
    ems = plain.model_copy(update={"statistics": StatisticsReference(digest="0" * 32)})
    assert ems.tied_to == ("EMS statistics 00000000 of one model (v3 steps)",)


def test_guidance_is_said_call_by_call() -> None:
    guided = published.with_guidance(published.ddim(vp_linear(), nfe=3), [1.0, 4.0, 2.5])
    assert "Guidance, call by call: 1, 4, 2.5." in guided.describe()


def test_a_schedule_draws_itself() -> None:
    figure = published.ddim(edm(), nfe=3).plot("three calls")
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "three calls"


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (published.dpmpp_2m(edm(), nfe=4), ["DDIM", *["DPM-Solver++(2M)"] * 2, "DDIM"]),
        (
            published.unipc(vp_linear(), nfe=5, order=3),
            [
                "UniPC-2 bh2, order 1",
                "UniPC-2 bh2",
                "UniPC-3 bh2",
                "UniPC-2 bh2",
                "UniPC-2 bh2, order 1",
            ],
        ),
        (
            published.deis(edm(), nfe=4, order=3),
            ["DEIS tAB-2, order 1", "DEIS tAB-2", "DEIS tAB-3", "DEIS tAB-3"],
        ),
        (published.dpmpp_2s(edm(), nfe=2), ["DDIM", "DPM-Solver++(2S), order 2"]),
        (published.flow_2m(flow(), nfe=3), ["flow Euler", "flow AB-2", "flow AB-2"]),
    ],
)
def test_a_step_has_the_name_of_the_solver_whose_step_it_is(
    schedule: Schedule, words: list[str]
) -> None:
    assert [step_words(step, schedule.process) for step in schedule.steps] == words


def test_a_step_of_no_published_solver_is_told_by_its_choices() -> None:
    second = published.dpmpp_2m(edm(), nfe=4).steps[1]
    corrector = published.heun_steps(2, ends_clean=True)[0].corrector
    corrected = second.model_copy(update={"corrector": corrector})
    assert step_words(corrected, edm()) == "DPM-Solver++(2M), then implicit corrector"
    told = second.model_copy(update={"network_time": 0.5})
    assert step_words(told, edm()) == "DPM-Solver++(2M); network told 0.5"
    free = Step(predictor=Free(p=((-1, 0.2),), q=(0.8,), carries=False))
    assert step_words(free, edm()).startswith("Free, data, 1 prediction")
