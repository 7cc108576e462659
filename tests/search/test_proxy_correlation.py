"""How well a rung ranks what the next one measures."""

import math

import pytest

from s3search.processes import edm
from s3search.schedules.published import ddim
from s3search.search.predictor.proxy_correlation import (
    correlation_of,
    early_columns,
    ladder_of,
    signal_per_image,
    whole_column,
)
from s3search.search.questions import Measurement
from tests.support.searches import measured

IDS = [f"s{i}" for i in range(24)]
TRUE = {i: float(k) for k, i in enumerate(IDS)}


def test_a_rung_that_agrees_has_one_and_one_that_lies_minus_one() -> None:
    lies = {i: -value for i, value in TRUE.items()}
    agrees = correlation_of(("mixture", 0, TRUE), ("FD@125", 125, TRUE))
    assert (agrees.correlation, agrees.top_correlation) == (1.0, 1.0)
    assert (agrees.n, agrees.n_top, agrees.next) == (24, 6, "FD@125")
    opposes = correlation_of(("mixture", 0, lies), ("FD@125", 125, TRUE))
    assert opposes.correlation == pytest.approx(-1)


def test_the_best_may_be_ranked_worse_than_all() -> None:
    scores = {i: value if value >= 6 else 6 - value for i, value in TRUE.items()}
    found = correlation_of(("mixture", 0, scores), ("FD@125", 125, TRUE))
    assert found.correlation is not None and found.correlation > 0.9
    assert found.top_correlation == pytest.approx(-1)


def test_only_schedules_with_both_numbers_count() -> None:
    scores = {**TRUE, "s0": math.nan, "other": 1.0}
    few = {i: TRUE[i] for i in IDS[:4]}
    found = correlation_of(("gaussian", 0, scores), ("FD@125", 125, few))
    assert (found.n, found.correlation, found.top_correlation) == (3, 1.0, None)
    nothing = correlation_of(("gaussian", 0, {}), ("FD@125", 125, few))
    assert (nothing.n, nothing.n_top, nothing.correlation) == (0, 0, None)


def test_the_looks_of_early_stopping_are_a_ladder() -> None:
    known = [
        measured(s, 0.1 * s.nfe, path={10: 1.0 * s.nfe, 20: 9.0})
        for s in (ddim(edm(), nfe=n) for n in (2, 3, 4))
    ]
    question = measured(ddim(edm(), nfe=5), None).question
    known.append(Measurement(question=question, estimate=7.0, n_images=10, path={10: 7.0}))
    rungs = ladder_of([*early_columns(known, (10, 20), "FD"), whole_column(known, 80, "FD")])
    assert [(r["rung"], r["images"], r["next"], r["n"]) for r in rungs] == [
        ("FD@10", 10, "FD@20", 3),
        ("FD@20", 20, "FD@80", 3),
    ]


def test_twice_the_images_need_the_ratio_of_signal_to_noise_twice_as_high() -> None:
    half = math.sqrt(0.5)  # as much signal as noise
    two_thirds = math.sqrt(2 / 3)
    assert signal_per_image(half, 64) == pytest.approx(signal_per_image(two_thirds, 128))
    assert signal_per_image(-0.9, 64) == signal_per_image(math.nan, 64) == 0.0
    assert math.isfinite(signal_per_image(1.0, 64))
