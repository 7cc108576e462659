"""The best model by cross-validation is used, and no model where none says anything."""

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest

from s3search.search.predictor.base import Example
from s3search.search.predictor.choice import CANDIDATES, ChosenPredictor, choose
from s3search.search.predictor.ranks import best_share, rank_correlation
from s3search.search.predictor.sequence import SequenceModel
from tests.search.predictor.examples import examples

N = 100


Outcome = Callable[..., tuple[ChosenPredictor, float]]


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """What is chosen from the first n, and its rank correlation on the last 60; chosen once."""

    @cache
    def of(kind: str, n: int = N) -> tuple[ChosenPredictor, float]:
        found, values = examples(kind)
        chosen = choose(found[:n], values[:n], 0)
        forecast = chosen.predictor.predict(found[N:])
        return chosen, rank_correlation(forecast.mean, np.log(values[N:]))

    return of


def test_a_good_proxy_is_trusted_and_its_measured_correlation_holds(outcome: Outcome) -> None:
    chosen, correlation = outcome("good")
    assert chosen.trusted
    assert correlation > 0.75  # 0.45 without the proxy
    assert chosen.correlation == pytest.approx(correlation, abs=0.12)
    assert chosen.correlations[chosen.name] == chosen.correlation
    assert chosen.top_correlation > 0.2


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize("kind", ["noise", "anti"])
def test_a_wrong_proxy_does_no_harm(kind: str, n: int, outcome: Outcome) -> None:
    without = outcome("none", n)[1]
    chosen, correlation = outcome(kind, n)
    assert correlation > without - 0.05
    if kind == "noise":
        assert "decisions" in chosen.correlations  # those without proxies were asked too


def test_values_without_any_pattern_are_not_trusted() -> None:
    found, _ = examples("good")
    trusted = [
        choose(found[:60], np.exp(np.random.default_rng(seed).normal(size=60)), seed).trusted
        for seed in range(6)
    ]
    assert not any(trusted)


@pytest.mark.parametrize("n", [1, 3, 7, 9])
def test_a_few_examples_are_answered_and_not_trusted(n: int) -> None:
    found, values = examples("none")
    chosen = choose(found[:n], values[:n], 0)
    assert not chosen.trusted
    assert chosen.n == n
    assert math.isnan(chosen.correlation) == (n < 8)
    assert np.isfinite(chosen.predictor.predict(found).mean).all()


def test_equal_values_are_not_trusted() -> None:
    chosen = choose(examples()[0][:20], [1.0] * 20, 0)
    assert not chosen.trusted
    assert math.isnan(chosen.correlation)


def test_a_choice_is_deterministic() -> None:
    found, values = examples()
    a, b = (choose(found[:50], values[:50], 7) for _ in range(2))
    assert (a.name, a.correlations) == (b.name, b.correlations)
    assert np.array_equal(a.predictor.predict(found).mean, b.predictor.predict(found).mean)


def test_the_sequence_model_joins_when_there_are_enough_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, values = examples()
    quick = partial(SequenceModel, epochs=40)  # how well it learns, others ask
    monkeypatch.setitem(CANDIDATES, "sequence", lambda names: quick(proxies=names))
    few = choose(found[:40], values[:40], 0, sequence_from=41)
    enough = choose(found[:40], values[:40], 0, sequence_from=40)
    assert "sequence" not in few.correlations
    assert enough.correlations["sequence"] > 0.4


def test_only_the_named_proxies_are_used(outcome: Outcome) -> None:
    found, values = examples()
    both = [
        Example(schedule=e.schedule, proxies={**e.proxies, "late": float(v)})
        for e, v in zip(found, values, strict=True)
    ]
    chosen = choose(both[:N], values[:N], 0, proxies=["good"])
    plain = outcome("good")[0]
    assert chosen.correlations == plain.correlations  # "late" would rank everything


def test_intervals_hold_what_they_promise(outcome: Outcome) -> None:
    found, values = examples()
    forecast = outcome("good")[0].predictor.predict(found[N:])
    inside = np.abs(np.log(values[N:]) - forecast.mean) < 1.645 * forecast.std
    assert 0.75 < inside.mean() <= 1.0
    assert forecast.std.mean() < np.log(values).std()


def test_ranks_are_taken_inside_groups() -> None:
    groups, y = [3] * 5 + [8] * 5, np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    by_group = np.array([1.0] * 5 + [0.0] * 5)
    assert rank_correlation(by_group, y) > 0.8
    assert math.isnan(rank_correlation(by_group, y, groups))
    assert rank_correlation(y**3, y, groups) == pytest.approx(1.0)
    assert rank_correlation(-y, y, groups) == pytest.approx(-1.0)
    assert best_share(y, groups).tolist() == [2, 3, 4, 7, 8, 9]
    assert math.isnan(rank_correlation(y[:2], y[:2]))
