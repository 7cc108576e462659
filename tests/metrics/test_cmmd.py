"""CMMD: the published formula, and what it is of unit vectors."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from s3search.metrics import discrepancy
from s3search.metrics.cmmd import CmmdStatistic


def _embeddings(n: int, shift: float, seed: int, d: int = 16) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)) + shift
    unit: np.ndarray = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def _published(x: np.ndarray, y: np.ndarray) -> float:
    """All pairs, an image with itself included; sigma 10, times 1000."""

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        squared = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
        return float(np.exp(-squared / 200.0).mean())

    return 1000.0 * (mean(x, x) + mean(y, y) - 2.0 * mean(x, y))


@pytest.mark.parametrize("n", [2, 25, 61])
def test_the_value_is_the_published_formulas(n: int) -> None:
    real, made = _embeddings(40, 0.1, 1), _embeddings(n, 0.5, 2)
    assert CmmdStatistic.of(real).value(made) == pytest.approx(_published(real, made), rel=1e-9)


def test_each_block_left_out_is_the_formula_without_its_images() -> None:
    real, made = _embeddings(40, 0.1, 1), _embeddings(31, 0.5, 2)
    found = CmmdStatistic.of(real).left_out(made, 5).without
    blocks = np.array_split(np.arange(31), 5)
    by_hand = [_published(real, np.delete(made, own, axis=0)) for own in blocks]
    np.testing.assert_allclose(found, by_hand, rtol=1e-8)


def test_only_the_direction_of_features_counts() -> None:
    real, made = _embeddings(40, 0.1, 1), _embeddings(30, 0.5, 2)
    lengths = np.linspace(0.1, 9.0, 30)[:, None]
    found = CmmdStatistic.of(3.0 * real)
    assert found.value(lengths * made) == pytest.approx(_published(real, made), rel=1e-9)
    loss = found.loss(torch.device("cpu"))
    assert loss(torch.tensor(lengths * made)).item() == pytest.approx(
        loss(torch.tensor(made)).item(), rel=1e-9
    )


def test_alike_images_have_the_bias_that_the_module_states() -> None:
    drawn = [_embeddings(60, 0.3, seed) for seed in range(200)]
    found = np.mean([CmmdStatistic.of(x).value(y) for x, y in pairwise(drawn)])
    x, y = np.concatenate(drawn[:10]), np.concatenate(drawn[10:20])
    unlike = 1000.0 * (1.0 - np.exp(-((x[:, None] - y) ** 2).sum(axis=2) / 200.0).mean())
    assert found == pytest.approx(unlike * 2 / 60, rel=0.05)


def test_neither_value_nor_loss_depends_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = _embeddings(40, 0.1, 1), _embeddings(30, 0.5, 2)

    def found() -> np.ndarray:
        statistic = CmmdStatistic.of(real)
        x = torch.tensor(made, requires_grad=True)
        loss = statistic.loss(torch.device("cpu"))(x)
        (gradient,) = torch.autograd.grad(loss, x)
        return np.array([statistic.value(made), loss.item(), *gradient.flatten()])

    whole = found()
    monkeypatch.setattr(discrepancy, "_CHUNK", 7)
    np.testing.assert_allclose(found(), whole, rtol=1e-8, atol=1e-12)
