"""Proxies that are wrong on a real network: noticed, left aside, and no harm done."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from s3search.cluster import InlinePool
from s3search.cluster.asking import Asker
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Reply, Request
from s3search.processes import edm
from s3search.schedules.published import baselines
from s3search.search.algorithms.s3 import S3
from s3search.search.conversation import Setup, Talk
from s3search.search.ladder import LadderRung
from s3search.search.predictor import free_proxies
from s3search.search.predictor.surrogate import Surrogate
from s3search.search.questions import Answer, Measurement, Question, Recall, Score
from s3search.search.space import load_space
from s3search.search.trial import distinct
from tests.support.searches import Bench, measured, published, setup_of
from tests.support.specs import evaluator_spec

SEEDS = distinct(published(baselines(edm(), 4)))[:40]

DIGITS_SEEDS = distinct(published(baselines(edm(), 3)))[::4]

N_IMAGES = 40


# -- the order of the seeds ----------------------------------------------------------------


class _Scores(Bench):
    """Only scores: the Gaussian by rank in `SEEDS`, the mixture as it is told."""

    def __init__(self, mixture: Mapping[str, float]) -> None:
        super().__init__()
        self._by_name = {
            "gaussian": {trial.id: 1.0 + i for i, trial in enumerate(SEEDS)},
            "mixture": mixture,
        }

    @property
    def proxies(self) -> list[str]:
        """Which were asked for, in order; one that was asked several times on end once."""
        asked = [question.proxy for question in self.asked if isinstance(question, Score)]
        return [name for name, _ in groupby(asked)]

    def answer(self, question: Question) -> Answer:
        assert isinstance(question, Score)
        scores = self._by_name[question.proxy]
        return Answer(question=question, value=tuple(scores[t.id] for t in question.trials))


def _setup() -> Setup:
    free = (LadderRung.GAUSSIAN, LadderRung.MIXTURE)
    return setup_of(load_space("usf"), edm(), nfe=[4], ladder=free)


def _order_after(values: Mapping[str, float], mixture: Mapping[str, float]) -> list[int]:
    """The order of the last 16 seeds once every other one of the first 24 was measured."""
    bench, surrogate = _Scores(mixture), Surrogate(_setup(), Talk())
    bench.run(surrogate.learn([measured(trial, values[trial.id]) for trial in SEEDS[:24]]))
    order: list[int] = bench.run(surrogate.order(SEEDS[24:]))
    return order


def test_a_proxy_that_lies_no_longer_orders_what_is_left() -> None:
    rng = np.random.default_rng(0)
    values = {t.id: 1.0 + i for i, t in enumerate(SEEDS[::-1])}  # the Gaussian is all wrong
    noise = {trial.id: float(rng.random()) for trial in SEEDS}
    assert _order_after(values, noise) == list(range(16))
    assert _order_after(values, values) == list(range(15, -1, -1))


def test_two_proxies_count_by_how_they_ranked_what_was_measured() -> None:
    values = {trial.id: 1.0 + i for i, trial in enumerate(SEEDS)}
    rng = np.random.default_rng(0)
    rough = {i: value + 12.0 * float(rng.normal()) for i, value in values.items()}
    order = _order_after(values, rough)
    alone = np.argsort([rough[trial.id] for trial in SEEDS[24:]])
    assert np.corrcoef(order, range(16))[0, 1] > np.corrcoef(alone, range(16))[0, 1]


def test_a_proxy_without_any_score_is_asked_once_and_not_shown() -> None:
    """As the mixture for models of latents."""
    bench, talk = _Scores({trial.id: math.nan for trial in SEEDS}), Talk()
    surrogate = Surrogate(_setup(), talk)
    assert bench.run(surrogate.order(SEEDS[:24])) == list(range(24))
    known = [measured(trial, 1.0 + i) for i, trial in enumerate(SEEDS)]
    bench.run(surrogate.learn(known))
    assert bench.proxies == ["gaussian", "mixture", "gaussian"]
    surrogate.note_ladder("seeds", known)
    (content,) = (note.content for note in talk.notes if note.kind == "ladder")
    assert [rung["rung"] for rung in content["rungs"]] == ["gaussian"]


# -- whole searches on the digits ----------------------------------------------------------


class _Digits(Bench):
    """The digits model answers, on a worker of its own."""

    def __init__(self, digits: Evaluator) -> None:
        super().__init__(budget=80 * N_IMAGES)
        self._asker = Asker(InlinePool[Request, Reply](lambda: digits))
        self.values: list[float] = []

    def answer(self, question: Question) -> Measurement | Answer:
        assert not isinstance(question, Recall)
        self._asker.begin([question])
        (answer,) = self._asker.answers()
        if isinstance(answer, Measurement) and answer.value is not None:
            self.values.append(answer.value)
        return answer


class _Liar(_Digits):
    """Its free proxies say the opposite of what they found."""

    def answer(self, question: Question) -> Measurement | Answer:
        found = super().answer(question)
        if isinstance(found, Measurement) or not isinstance(question, Score):
            return found
        assert question.proxy in ("gaussian", "mixture")
        return replace(found, value=tuple(1.0 / score for score in found.value))


@pytest.fixture(scope="module")
def digits() -> Evaluator:
    return Evaluator(evaluator_spec(model="digits", features="digits", reference="digits"))


@dataclass(frozen=True)
class _Found:
    """The best distance, what was noted, and which seeds were measured, in their order."""

    best: float
    notes: dict[str, list[Mapping[str, Any]]]
    seeds: list[str]


def _searched(bench: _Digits, digits: Evaluator, *ladder: str) -> _Found:
    setup = setup_of(
        load_space("usf", {"nfe": [3]}),
        digits.denoiser.process,
        found={"mean_image": digits.describe().mean_image},
        nfe=[3],
        seeds=DIGITS_SEEDS,
        n_images=N_IMAGES,
        ladder=tuple(LadderRung(name) for name in ladder),
    )
    bench.run(S3(setup).run())
    notes: dict[str, list[Mapping[str, Any]]] = {}
    for kind, content in bench.notes:
        notes.setdefault(kind, []).append(content)
    seeds = [trial.origin.label for trial in bench.trials if trial.origin.is_baseline]
    return _Found(best=min(bench.values), notes=notes, seeds=seeds)


def test_on_the_digits_wrong_proxies_are_noticed_and_do_no_harm(
    digits: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_proxies, "_UNCOUNTED", math.inf)  # of so few images all are too dear
    lied = _searched(_Liar(digits), digits, "gaussian", "mixture", "predictor")
    alone = _searched(_Digits(digits), digits, "predictor")
    found_of = lied.notes["predictor"][-1]["proxies"]
    assert found_of["gaussian"] < 0 and found_of["mixture"] < 0
    gaussian, mixture = lied.notes["ladder"][0]["rungs"]
    assert mixture["correlation"] < 0 < gaussian["correlation"]  # one lie agrees with the other
    first = lied.seeds[: mixture["n"]]
    rest = [t.origin.label for t in DIGITS_SEEDS if t.origin.label not in first]
    assert lied.seeds[len(first) :] == rest[: len(lied.seeds) - len(first)]
    assert len(lied.seeds) > len(first)
    assert lied.best < 1.15 * alone.best
