"""What may not get worse while the metric gets better."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from s3search.processes import edm
from s3search.schedules import published
from s3search.search.conversation import Answers, Ask, Conversation, Outside
from s3search.search.direction import Direction
from s3search.search.gains import Gains
from s3search.search.guard import Guard
from s3search.search.guarding import GuardLimits, guarded
from s3search.search.questions import Measure, Measurement, Polish, Rung
from s3search.search.trial import Trial, published_as, searched
from s3search.show.terminal.gains import gain_lines
from s3search.study.results.gains import in_values

FEWER = Guard(name="distance", direction=Direction.MINIMIZE, times=1.1)
MORE = Guard(name="score", direction=Direction.MAXIMIZE, times=0.9)
SCHEDULES = list(published.baselines(edm(), 4).values())[:6]


def _measured(
    i: int, value: float, guards: Sequence[float], *, is_published: bool = False
) -> Measurement:
    origin = published_as(f"solver {i}") if is_published else searched("mutation")
    question = Measure(
        trial=Trial.of(SCHEDULES[i], origin), rung=Rung.SEARCH, n_images=10, noise_seed=0
    )
    return Measurement(question=question, estimate=value, n_images=10, guards=tuple(guards))


@pytest.mark.parametrize(
    ("guard", "published_value", "limit", "kept", "broken"),
    [
        (FEWER, 2.0, 2.2, 2.19, 2.21),
        (FEWER, -2.0, -1.8, -1.81, -1.79),  # an unbiased distance may be negative
        (MORE, 10.0, 9.0, 9.01, 8.99),
        (MORE, -10.0, -11.0, -10.99, -11.01),  # a log-probability is
    ],
)
def test_a_limit_allows_more_of_any_sign(
    guard: Guard, published_value: float, limit: float, kept: float, broken: float
) -> None:
    assert guard.limit(published_value) == pytest.approx(limit)
    assert guard.excess(kept, published_value) < 0.0 < guard.excess(broken, published_value)
    assert guard.excess(published_value, published_value) < 0.0
    assert guard.says(kept, published_value, "DDIM").endswith("kept")
    assert guard.says(broken, published_value, "DDIM").endswith("broken")


@pytest.mark.parametrize("published_value", [3.0, 0.0, -2e-4])
@pytest.mark.parametrize("direction", Direction)
def test_a_limit_in_the_guards_own_unit_needs_no_scale(
    direction: Direction, published_value: float
) -> None:
    guard = Guard(name="kernel", direction=direction, worse_by=0.5)
    worse = direction.loss(1.0)
    assert guard.limit(published_value) == pytest.approx(published_value + 0.5 * worse)
    assert guard.excess(published_value + 0.49 * worse, published_value) < 0.0
    assert guard.excess(published_value + 0.51 * worse, published_value) > 0.0


def test_polishings_under_other_limits_are_other_questions() -> None:
    trial = Trial.of(SCHEDULES[0], searched("mutation"))
    polish = Polish(trial=trial, iterations=1, n_images=4, seed=0, noise_seed=0, beside=trial)
    held = [replace(FEWER, times=1.0, worse_by=by) for by in (0.0, 0.1, 0.2)]
    assert len({replace(polish, guards=(guard,)).key for guard in held}) == 3


def test_the_limit_is_that_of_the_best_published_by_the_metric_so_far() -> None:
    limits = GuardLimits((FEWER,))
    assert limits.excesses(_measured(3, 0.1, [9.0])) == ()  # nothing published is known yet
    limits.learn(_measured(0, 1.0, [5.0], is_published=True))
    limits.learn(_measured(1, 2.0, [1.0], is_published=True))  # worse by the metric
    limits.learn(_measured(2, 0.5, [0.1]))  # found
    assert limits.excesses(_measured(3, 0.1, [5.4]))[0] < 0.0
    assert limits.excesses(_measured(3, 0.1, [5.6]))[0] > 0.0
    limits.learn(_measured(4, 0.9, [4.0], is_published=True))
    assert limits.excesses(_measured(3, 0.1, [5.4]))[0] > 0.0


def test_a_limit_holds_for_the_images_that_told_it() -> None:
    """Distances of other numbers of images have another bias, and other noise other values."""
    limits = GuardLimits((FEWER,))
    limits.learn(_measured(0, 1.0, [5.0], is_published=True))
    again = _measured(3, 0.1, [9.0])
    for rung, n_images, noise_seed in (
        (Rung.FINALS, 50, 7),
        (Rung.SEARCH, 10, 7),
        (Rung.SEARCH, 50, 0),
    ):
        asked = replace(again.question, rung=rung, n_images=n_images, noise_seed=noise_seed)
        assert limits.excesses(replace(again, question=asked, n_images=n_images)) == ()
    assert limits.judged(again).estimate is None


def test_a_search_hears_of_what_breaks_a_guard_as_of_what_did_not_work() -> None:
    heard: list[Measurement] = []
    other = _measured(4, 2.0, [9.0, 9.0], is_published=True)  # breaks one, and is no news

    polish = Polish(
        trial=Trial.of(SCHEDULES[1], searched("mutation")),
        iterations=1,
        n_images=4,
        seed=0,
        noise_seed=0,
    )

    def search() -> Conversation[None]:
        for _ in range(3):
            answers = yield Ask(begin=(polish,), wait=(polish,))
            heard.extend(answers.given)

    conversation, outside = guarded(search(), [FEWER, MORE]), Outside(budget=1.0)
    best = _measured(0, 1.0, [2.0, 10.0], is_published=True)
    kept = _measured(1, 0.5, [2.1, 9.5])
    broken = replace(_measured(2, 0.1, [2.1, 8.0]), path={5: 0.2})
    stopped = replace(_measured(3, 0.4, []), n_images=5)
    assert next(conversation).wait == (polish,)  # nothing tells of a limit yet
    ask = conversation.send(Answers(given=(best, kept), outside=outside))
    held = replace(polish, guards=(FEWER, MORE), beside=best.trial)
    assert ask.begin == ask.wait == (held,)
    conversation.send(Answers(given=(broken, other), outside=outside))
    with pytest.raises(StopIteration):
        conversation.send(Answers(given=(stopped,), outside=outside))
    assert [each.loss for each in heard] == [1.0, 0.5, None, 2.0, None]
    assert heard[2].error == "breaks the guard score"
    assert (heard[2].losses, heard[2].cost) == ({}, broken.cost)
    assert heard[4] is stopped


def _again(measured: Measurement, value: float, guard: float) -> Measurement:
    """A trial measured on the noise of the finals."""
    asked = replace(measured.question, rung=Rung.FINALS, n_images=50, noise_seed=7)
    return replace(measured, question=asked, estimate=value, n_images=50, guards=(guard,))


def test_the_finals_measure_the_best_published_solver_beside_the_finalists() -> None:
    """A limit holds for the images that told it, so the finals have one of their own."""
    seen: list[Answers] = []
    best = _measured(0, 1.0, [5.0], is_published=True)
    other = _measured(1, 2.0, [1.0], is_published=True)
    finalist = _measured(2, 0.5, [5.1])
    again = _again(finalist, 0.6, 5.0)  # within the search's limit, 5.5, and beyond that of here

    def search() -> Conversation[None]:
        asked = (best.question, other.question, finalist.question)
        seen.append((yield Ask(begin=asked, wait=asked)))
        seen.append((yield Ask(begin=(again.question,), wait=(again.question,))))

    conversation, outside = guarded(search(), [FEWER]), Outside(budget=1.0)
    assert len(next(conversation).begin) == 3
    ask = conversation.send(Answers(given=(best, other, finalist), outside=outside))
    beside = _again(best, 1.1, 4.0)
    assert [q.trial.id for q in ask.begin] == [best.trial.id, finalist.trial.id]
    assert ask.begin == ask.wait == (beside.question, again.question)
    with pytest.raises(StopIteration):
        conversation.send(Answers(given=(beside, again), outside=outside))
    (heard,) = seen[1].given  # the search hears of what it asked for alone
    assert heard.question == again.question
    assert heard.broken == ("distance",)


def test_a_published_finalist_is_not_measured_twice() -> None:
    limits = GuardLimits((FEWER,))
    best = _measured(0, 1.0, [5.0], is_published=True)
    limits.learn(best)
    question = _again(best, 1.1, 4.0).question
    assert limits.also_asked(Ask(begin=(question,), wait=(question,))) == ()
    assert limits.also_asked(Ask(begin=(best.question,), wait=())) == ()  # no finals


def test_those_published_that_are_told_in_a_turn_hold_for_all_of_it() -> None:
    heard: list[Answers] = []
    first, best = _measured(0, 0.5, [9.0]), _measured(1, 1.0, [5.0], is_published=True)

    def search() -> Conversation[None]:
        heard.append((yield Ask(begin=(), wait=(first.question, best.question))))

    conversation = guarded(search(), [FEWER])
    next(conversation)
    with pytest.raises(StopIteration):
        conversation.send(Answers(given=(first, best), outside=Outside(budget=1.0)))
    assert [each.loss for each in heard[0].given] == [None, 1.0]


def test_what_breaks_a_guard_has_not_failed() -> None:
    gains = Gains(4)
    broken = replace(_measured(1, 0.1, [9.0]), estimate=None, error="x", broken=("distance",))
    failed = replace(_measured(2, 0.1, []), estimate=None, error="out of memory")
    gains.add([_measured(0, 1.0, [2.0]), broken, failed], "evolution")
    (stage,) = gains.content({})["stages"]
    assert (stage["n"], stage["broken"], stage["failed"]) == (3, 1, 1)
    assert stage["error"] == "out of memory"
    (_, line) = gain_lines([in_values(gains.content({}), Direction.MINIMIZE)])
    assert "3 measured, 1 break a guard, 1 failed" in line
    alone = Gains(4)
    alone.add([broken, broken], "evolution")
    assert alone.content({})["warnings"] == ["NFE 4: evolution: all 2 measured break a guard"]
