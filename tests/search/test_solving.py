"""Fine solves are questions of their own: once for each noise, before what needs them."""

from collections.abc import Sequence

import pytest

from s3search.processes import edm
from s3search.schedules import published
from s3search.search.algorithms.s3 import S3, finals_size, net_budget
from s3search.search.conversation import Answers, Ask, Conversation, Outside
from s3search.search.questions import Answer, FineSolves, Measure, Question, Rung, solve_calls
from s3search.search.solving import SolvedNoises, solved_first
from s3search.search.space import load_space
from s3search.search.trial import Trial, searched
from tests.support.searches import setup_of

TRIAL = Trial.of(published.ddim(edm(), nfe=4), searched("mutation"))


def _measure(rung: Rung = Rung.SEARCH, n_images: int = 80, noise_seed: int = 0) -> Measure:
    return Measure(trial=TRIAL, rung=rung, n_images=n_images, noise_seed=noise_seed)


def _asked(noises: SolvedNoises, *questions: Question) -> list[tuple[int, bool, int, int]]:
    """Noise seed, whether it is held out, first image and number of images of what is missing."""
    found = noises.missing(Ask(begin=questions, wait=questions))
    return [(each.noise_seed, each.held_out, each.first, each.n_images) for each in found]


def test_every_noise_is_solved_once_and_more_images_as_far_as_they_go_on() -> None:
    noises = SolvedNoises(by_all=True, by_validation=False)
    assert _asked(noises, _measure(), _measure()) == [(0, False, 0, 80)]
    assert _asked(noises, _measure(n_images=50)) == []
    assert _asked(noises, _measure(n_images=1100)) == [
        (0, False, 80, 500),
        (0, False, 580, 500),
        (0, False, 1080, 20),
    ]
    assert _asked(noises, _measure(Rung.FINALS, 80, 7)) == [(7, False, 0, 80)]
    assert _asked(noises, _measure(Rung.VALIDATION, 80, 9)) == [(9, True, 0, 80)]
    assert _asked(noises, _measure(Rung.VALIDATION, 80, 9)) == []


def test_a_second_metric_needs_those_of_the_validation_alone() -> None:
    noises = SolvedNoises(by_all=False, by_validation=True)
    assert _asked(noises, _measure(), _measure(Rung.FINALS, 80, 7)) == []
    assert _asked(noises, _measure(Rung.VALIDATION, 80, 9)) == [(9, True, 0, 80)]
    nothing = SolvedNoises(by_all=False, by_validation=False)
    assert _asked(nothing, _measure(Rung.VALIDATION, 80, 9)) == []


def test_a_turn_waits_for_its_solves_and_is_then_as_it_was() -> None:
    heard: list[Sequence[object]] = []

    def search() -> Conversation[str]:
        for _ in range(2):
            answers = yield Ask(begin=(_measure(),), wait=(_measure(),))
            heard.append(answers.given)
        return "found"

    noises, outside = SolvedNoises(by_all=True, by_validation=False), Outside(budget=1.0)
    conversation = solved_first(search(), noises)
    first = next(conversation)
    (solves,) = first.wait
    assert isinstance(solves, FineSolves)
    assert first.begin == first.wait
    solved = Answer(question=solves, value=100, network_calls=solve_calls(80))
    assert solved.images == 100 * 32 / 4  # of a schedule of four calls
    assert conversation.send(Answers(given=(solved,), outside=outside)).wait == (_measure(),)
    assert conversation.send(Answers(given=("a",), outside=outside)).wait == (_measure(),)
    with pytest.raises(StopIteration) as end:
        conversation.send(Answers(given=("b",), outside=outside))
    assert (heard, end.value.value) == ([("a",), ("b",)], "found")


def test_s3_pays_for_them_from_its_budget() -> None:
    def stages(**changes: bool) -> dict[str, float]:
        setup = setup_of(load_space("usf"), edm(), nfe=[4, 8], n_images=100, **changes)
        return dict(S3(setup).images_by_stage(20_000.0))

    setup = setup_of(load_space("usf"), edm(), nfe=[4, 8], n_images=100, solves=True)
    assert setup.solved_images == pytest.approx(100 * 32 / 6)  # of a noise that both have
    assert net_budget(setup, 20_000.0) == pytest.approx(20_000.0 - 3200 / 6)
    assert net_budget(setup, 1_000.0) == 500.0  # a small one is exceeded
    _, n_images = finals_size(setup, 4, 960.0)
    n, without = finals_size(setup_of(load_space("usf"), edm(), nfe=[4], n_images=100), 4, 960.0)
    assert (n, n_images, without) == (4, 80, 240)  # 4 finalists, and 8 images' worth of each solve
    usual, solving = stages(), stages(solves=True)
    assert "solves" not in usual
    assert sum(solving.values()) == pytest.approx(sum(usual.values()), rel=0.03)  # whole blocks
    assert solving["solves"] > setup.solved_images
