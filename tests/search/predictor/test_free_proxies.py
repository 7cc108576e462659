"""Free proxies: scored in portions, dropped by rank and by cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from s3search.processes import edm
from s3search.schedules.published import baselines
from s3search.search.conversation import Answers, Ask, Talk
from s3search.search.ladder import LadderRung
from s3search.search.predictor.free_proxies import FreeProxies
from s3search.search.questions import Answer, Decision, Question, Recall, Score
from s3search.search.space import load_space
from s3search.search.trial import distinct
from tests.support.searches import Bench, published, setup_of

SEEDS = distinct(published(baselines(edm(), 4)))
RANKS = {trial.id: 1.0 + i for i, trial in enumerate(SEEDS)}


class _Proxy(Bench):
    """Scores by rank, each schedule in so many seconds."""

    def __init__(self, scores: Mapping[str, float], seconds: float) -> None:
        super().__init__()
        self._scores, self._seconds = scores, seconds
        self.known: Decision | None = None  # in an earlier run

    def _answers(self, ask: Ask) -> Answers:
        answers = super()._answers(ask)
        recalled = any(isinstance(question, Recall) for question in ask.wait)
        return replace(answers, given=(self.known,)) if recalled else answers

    def answer(self, question: Question) -> Answer:
        assert isinstance(question, Score)
        value = tuple(self._scores[trial.id] for trial in question.trials)
        return Answer(question=question, value=value, seconds=len(value) * self._seconds)

    @property
    def n_scored(self) -> int:
        return sum(len(q.trials) for q in self.asked if isinstance(q, Score))


@dataclass
class _Case:
    """Proxies of one number of calls, and who answers them."""

    scores: Mapping[str, float] = field(default_factory=lambda: RANKS)
    seconds: float = 0.0
    useless: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        setup = setup_of(load_space("usf"), edm(), nfe=[4], ladder=(LadderRung.MIXTURE,))
        self.talk = Talk()
        self.bench = _Proxy(self.scores, self.seconds)
        self.proxies = FreeProxies(setup, self.talk, self.useless)

    def measure(self, n: int) -> None:
        """Learns the first ``n`` seeds, whose distances are their numbers."""
        self.proxies.n_measured = n
        self.bench.run(self.proxies.score(SEEDS[:n]))
        self.proxies.judge([(t, 1.0 + i) for i, t in enumerate(SEEDS[:n])])


def test_a_portion_is_scored_first_and_more_as_more_is_measured() -> None:
    case = _Case()
    case.bench.run(case.proxies.score(SEEDS))
    assert case.bench.n_scored == 32 < len(SEEDS)
    spread = [i for i, trial in enumerate(SEEDS) if case.proxies.of(trial)]
    assert spread[0] == 0 and max(b - a for a, b in pairwise(spread)) < len(SEEDS) / 16
    case.measure(6)
    case.bench.run(case.proxies.score(SEEDS))
    assert case.bench.n_scored == 32 + 32 * 6 < len(SEEDS)


def test_what_ranks_badly_is_asked_no_more_at_this_number_of_calls_nor_later() -> None:
    case = _Case(scores={trial.id: -RANKS[trial.id] for trial in SEEDS})
    case.measure(16)
    before = case.bench.n_scored
    assert case.proxies.asked == [] and "rank correlation -1.00" in case.proxies.dropped["mixture"]
    case.bench.run(case.proxies.score(SEEDS))
    assert case.bench.n_scored == before
    assert _Case(useless=case.useless).proxies.asked == []


def test_what_ranks_all_but_not_the_best_is_dropped() -> None:
    best = {SEEDS[i].id: float(-i) for i in range(12)}  # of 48, in the wrong order
    case = _Case(scores=RANKS | best)
    case.measure(48)
    assert "-1.00 in the best quarter" in case.proxies.dropped["mixture"]
    kept = _Case()
    kept.measure(48)
    assert kept.proxies.asked == ["mixture"] and kept.proxies.weight("mixture") > 0.8


def test_what_takes_too_long_scores_less_or_nothing_and_a_resumed_search_decides_the_same() -> (
    None
):
    for seconds, per_measured in ((0.0001, 32), (0.0004, 8), (0.0015, 2)):
        case = _after_seconds(seconds)
        (note,) = (content for kind, content in case.bench.notes if kind == "decision")
        assert note["content"] == {"dropped": {}, "per_measured": per_measured}
        assert case.bench.n_scored == 32 + 2 * per_measured
    dear = _after_seconds(0.1)
    assert dear.proxies.asked == [] and "100 ms a schedule" in dear.proxies.dropped["mixture"]
    assert dear.bench.n_scored == 32
    (noted,) = dear.talk.notes
    known = Decision(trials=(), content=noted.content["content"])
    assert _after_seconds(0.001, known).proxies.dropped == dear.proxies.dropped


def test_seconds_that_differ_a_little_decide_alike() -> None:
    decided = {_after_seconds(0.0003 * factor).bench.n_scored for factor in (0.5, 0.8, 1.2, 1.7)}
    assert decided == {32 + 2 * 8}


def _after_seconds(seconds: float, known: Decision | None = None) -> _Case:
    """What was scored after 2 measurements of 0.05 s, in a search of 10,000 of them."""
    case = _Case(seconds=seconds)
    n_images = case.proxies._setup.n_images
    case.bench.budget, case.bench.known = 10_000.0 * n_images, known
    case.bench.run(case.talk.turn())
    case.bench.run(case.proxies.score(SEEDS))
    case.talk.seconds, case.talk.images, case.proxies.n_measured = 0.1, 2.0 * n_images, 2
    case.bench.run(case.proxies.score(SEEDS))
    return case
