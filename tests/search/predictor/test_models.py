"""Every model ranks schedules it has not seen, the same way every time, whatever is missing."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import scipy.optimize
import torch

from s3search.schedules import published
from s3search.search.predictor.base import Array, Example
from s3search.search.predictor.choice import CANDIDATES
from s3search.search.predictor.features import Proxies, compact, flat, proxy_names, tokens
from s3search.search.predictor.process import Process, _negative_evidence, kept_rows
from s3search.search.predictor.ranks import rank_correlation
from s3search.search.predictor.trees import Trees
from tests.search.predictor.examples import examples, measured
from tests.support.helpers import PROCESSES

N = 100
HeldOut = tuple[float, Array, Array]
MODELS = {name: make for name, make in CANDIDATES.items() if name != "decisions"}


def held_out(name: str, proxies: tuple[str, ...] | None, kind: str) -> HeldOut:
    """Rank correlation on the last 60 of a fit to the first 100; misses in deviations; means."""
    found, values = examples(kind)
    predictor = CANDIDATES[name](proxies)
    predictor.fit(found[:N], values[:N], 0)
    forecast = predictor.predict(found[N:])
    y = np.log(values[N:])
    return (
        rank_correlation(forecast.mean, y),
        np.abs(y - forecast.mean) / forecast.std,
        forecast.mean,
    )


@pytest.fixture(scope="module")
def known() -> Callable[..., HeldOut]:
    """`held_out`, where each fit is made once."""
    return cache(held_out)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["good", "anti"])
def test_a_proxy_of_either_sign_ranks_unseen_schedules(
    name: str, kind: str, known: Callable[..., HeldOut]
) -> None:
    correlation, misses, _ = known(name, None, kind)
    assert correlation > 0.7  # the schedules alone reach 0.46 at most, the proxy alone 0.84
    assert (misses < 1.645).mean() > 0.6  # a deviation is a real one: 0.9 where all is normal
    assert misses.mean() > 0.05


@pytest.mark.parametrize("name", ["process", "trees", "sequence"])
def test_schedules_alone_say_something(name: str) -> None:
    assert held_out(name, (), "good")[0] > 0.3


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_is_deterministic_and_draws_from_no_global_seed(
    name: str, known: Callable[..., HeldOut]
) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = known(name, None, "good")[2]
    assert np.array_equal(first, held_out(name, None, "good")[2])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_handful_of_examples_is_enough_to_answer(name: str, n: int) -> None:
    found, values = examples()
    predictor = CANDIDATES[name](None).for_fold()
    predictor.fit(found[:n], values[:n], 0)
    forecast = predictor.predict(found)
    assert np.isfinite(forecast.mean).all()
    assert (forecast.std > 0).all()


@pytest.mark.parametrize("name", CANDIDATES)
def test_equal_values_and_equal_examples_are_answered(name: str) -> None:
    found, _ = examples()
    predictor = CANDIDATES[name](None).for_fold()
    predictor.fit([found[0]] * 10 + found[:10], [2.0] * 20, 0)
    assert predictor.predict(found[:3]).mean == pytest.approx(math.log(2.0))
    predictor.fit([found[0], found[1]] * 10, [1.0, 4.0] * 10, 0)
    assert np.isfinite(predictor.predict(found[:3]).std).all()


@pytest.mark.parametrize("name", MODELS)
def test_proxies_that_are_missing_cost_little(name: str) -> None:
    found, values = examples()
    gone = np.random.default_rng(2).random(len(found)) < 0.3
    thinned = [
        Example(
            schedule=example.schedule,
            proxies={
                "good": math.nan if gone[i] else example.proxies["good"],
                **({} if i % 7 == 0 else {"copy": 2.0 * example.proxies["good"] ** 0.5}),
                "constant": 3.0,
                "diverged": math.inf if example.proxies["good"] > 50 else 1.0 + i,
            },
        )
        for i, example in enumerate(found)
    ]
    predictor = CANDIDATES[name](None)
    predictor.fit(thinned[:N], values[:N], 0)
    forecast = predictor.predict(thinned[N:])
    assert rank_correlation(forecast.mean, np.log(values[N:])) > 0.75
    absent = predictor.predict([replace(each, proxies={}) for each in found[N:]])
    assert np.isfinite(absent.mean).all()


def test_a_missing_proxy_is_filled_in_from_the_others() -> None:
    schedules, _, proxy = measured()
    whole = [
        Example(schedule=s, proxies={"a": float(p), "b": float(p) ** 2})
        for s, p in zip(schedules, proxy, strict=True)
    ]
    proxies = Proxies(whole, ("a", "b"))
    half = [replace(each, proxies={"a": each.proxies["a"]}) for each in whole]
    assert proxies(half) == pytest.approx(proxies(whole), abs=0.35)  # up to the shrinkage
    assert np.corrcoef(proxies(half)[:, 1], proxies(whole)[:, 1])[0, 1] > 0.999


def test_names_are_those_of_enough_examples() -> None:
    schedule = measured()[0][0]
    some = [Example(schedule=schedule, proxies={"b": 1.0, "a": math.nan})] * 9
    some.append(Example(schedule=schedule, proxies={"a": 1.0, "b": 2.0}))
    assert proxy_names(some) == ("b",)
    assert proxy_names(some, least=0.05) == ("a", "b")


def test_the_gradient_of_the_evidence_is_its_slope() -> None:
    rng = np.random.default_rng(0)
    x, z, theta = rng.normal(size=(20, 3)), rng.normal(size=20), 0.3 * rng.normal(size=6)
    prior = np.zeros(6)
    slope = scipy.optimize.approx_fprime(
        theta, lambda at: _negative_evidence(at, x, z, prior)[0], 1e-6
    )
    assert _negative_evidence(theta, x, z, prior)[1] == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_of_many_examples_the_best_and_some_others_are_kept() -> None:
    y = np.random.default_rng(0).normal(size=1000)
    kept = kept_rows(y, 100, 3)
    assert len(set(kept.tolist())) == 100
    assert set(np.argsort(y)[:50].tolist()) <= set(kept.tolist())
    assert y[kept].max() > np.quantile(y, 0.9)
    found, values = examples()
    capped = Process(most=60)
    capped.fit(found[:N], values[:N], 0)
    assert rank_correlation(capped.predict(found[N:]).mean, np.log(values[N:])) > 0.75


@pytest.mark.parametrize("process", PROCESSES)
def test_every_published_schedule_has_finite_features(process: str) -> None:
    found = list(published.baselines(PROCESSES[process], 5).values())
    assert np.isfinite(flat(found)).all()
    assert np.isfinite(compact(found)).all()
    assert all(len(tokens(schedule)) == schedule.n_steps for schedule in found)


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan, 2.0], []])
def test_values_that_do_not_fit_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="a predictor learns from"):
        Trees().fit(examples()[0][: 3 if values else 0], values, 0)


@pytest.mark.parametrize("name", CANDIDATES)
def test_nothing_is_predicted_before_a_fit(name: str) -> None:
    with pytest.raises(RuntimeError, match="call fit first"):
        CANDIDATES[name](None).predict(examples()[0])
