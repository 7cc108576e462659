"""Polishing without a gradient: slopes by differences, rounds that lower the distance."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.polish.differences import PlanDifferences
from s3search.evaluation.polish.differentiable import DifferentiableDenoiser, gradient_problem
from s3search.evaluation.polish.gradient import PlanGradient
from s3search.evaluation.polish.polishing import PolishSettings
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.processes import NoiseProcess, edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Start, StartKind
from s3search.search.gains import Gains
from s3search.search.questions import Answer, Polish
from s3search.search.trial import Trial, seeded
from s3search.show.terminal.gains import gain_lines
from s3search.solvers.coefficients import coefficient_table
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range
from s3search.solvers.trainable_times import TrainableTimes
from tests.evaluation.test_polish import _distance, _polish
from tests.support.helpers import PROCESSES, gaussian, gaussian_reference
from tests.support.specs import extractor_of

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
_WITHOUT = PolishSettings(iterations=25, n_images=200, by_differences=True)


@torch.inference_mode()
def _in_inference(images: Tensor) -> Tensor:
    return images.flatten(1)


def _by_numpy(images: Tensor) -> Tensor:
    return torch.from_numpy(images.flatten(1).numpy())


def _both(schedule: Schedule, table: Any) -> tuple[PlanGradient, PlanDifferences]:
    denoiser = gaussian(schedule.process)
    given: dict[str, Any] = {
        "denoiser": DifferentiableDenoiser(denoiser, schedule.nfe, recompute=False),
        "seen": lambda x, _: x.flatten(1),
        "table": table,
        "noise": NoiseBank(denoiser, torch.device("cpu")),
        "batch_size": 40,
    }
    return PlanGradient(**given), PlanDifferences(**given)


def _tables(process: NoiseProcess) -> list[tuple[Schedule, Any]]:
    trained = trained_range(process)
    plain = published.unipc(process, nfe=4)
    short = published.ddim(process, nfe=3)
    zero = short.changed(start=Start(kind=StartKind.ZERO_X0))
    free = frozenset(Freedom)
    return [
        *(
            (each, TrainableTable(coefficient_table(each), carries=c, free=free, trained=trained))
            for each in (plain, zero)
            for c in (False, True)
        ),
        (plain, TrainableTimes(plain, trained=trained)),
    ]


@_EACH
def test_slopes_are_the_gradients(process: NoiseProcess) -> None:
    """Of every number that a gradient knows, with the answers of earlier calls kept."""
    for schedule, table in _tables(process):
        gradient, differences = _both(schedule, table)
        loss = FrechetLoss(gaussian_reference(gaussian(process)), torch.device("cpu"))
        batches = gradient.batches(0, 100)
        value, exact = gradient(batches, loss)
        before = [move.detach().clone() for move in table.moves]
        with torch.no_grad():
            features, slopes, places = differences._linear(batches, 100)
        assert all(torch.equal(a, b) for a, b in zip(before, table.moves, strict=True))
        moves = torch.zeros(len(places), dtype=torch.float64, requires_grad=True)
        at = loss(features + torch.tensordot(moves, slopes, dims=1))
        assert at.item() == pytest.approx(value)
        (found,) = torch.autograd.grad(at, moves)
        known = torch.stack([exact[leaf].view(-1)[place] for leaf, place in places])
        assert torch.linalg.vector_norm(found - known) < 0.1 * torch.linalg.vector_norm(known)
        assert sum(int((g != 0).sum()) for g in exact) <= len(places)


def test_a_number_costs_the_calls_behind_it_alone() -> None:
    schedule = published.ddim(edm(), nfe=3)
    table = TrainableTable(
        coefficient_table(schedule),
        carries=False,
        free=frozenset([Freedom.COEFFICIENTS]),
        trained=trained_range(edm()),
    )
    _, differences = _both(schedule, table)
    # row 1: noise and one weight, 2 of 3 calls; row 2: three numbers, 1 call; row 3: none
    assert differences.runs_of_round() == pytest.approx(16 + 2 * 2 / 3 + 3 * 1 / 3)
    before = differences.denoiser.network_calls
    with torch.no_grad():
        differences._linear(differences.batches(0, 80), 10)
    spent = differences.denoiser.network_calls - before
    assert spent == pytest.approx(10 * 3 * (differences.runs_of_round() - 8))


def test_few_moved_images_tell_the_slopes_of_many() -> None:
    """Of features that are what they are moved to, least squares know the slopes of the others."""
    schedule = published.ddim(edm(), nfe=3)
    table = TrainableTable(
        coefficient_table(schedule),
        carries=False,
        free=frozenset([Freedom.COEFFICIENTS]),
        trained=trained_range(edm()),
    )
    _, differences = _both(schedule, table)
    batches = differences.batches(0, 400)
    with torch.no_grad():
        features, slopes, places = differences._linear(batches, 100)
        exact = differences._linear(batches, 400)
    torch.testing.assert_close(features, exact[0])
    assert places == exact[2]
    torch.testing.assert_close(slopes[:, :100], exact[1][:, :100])
    mean_off = (slopes.mean(1) - exact[1].mean(1)).norm() / exact[1].mean(1).norm()
    products = [torch.einsum("knd,ne->kde", own, features) for own in (slopes, exact[1])]
    assert mean_off < 0.05
    assert (products[0] - products[1]).norm() < 0.05 * products[1].norm()


@_EACH
@pytest.mark.parametrize("features", [_in_inference, _by_numpy])
def test_a_polish_by_differences_lowers_the_exact_distance(
    process: NoiseProcess, features: Callable[[Tensor], Tensor]
) -> None:
    schedule = published.ddim(process, nfe=3)
    found = _polish(schedule, _WITHOUT, features=features)
    assert _distance(found.made.schedule) < 0.3 * _distance(schedule)
    assert found.made.schedule.provenance["polished_by"] == "differences"
    again = _polish(schedule, _WITHOUT, features=features)
    assert again.made == found.made


def test_it_costs_what_a_gradient_costs() -> None:
    schedule = published.unipc(edm(), nfe=4)
    settings = PolishSettings(iterations=25, n_images=200)
    by_gradient = _polish(schedule, settings).network_calls
    by_differences = _polish(schedule, _WITHOUT).network_calls
    assert by_differences == pytest.approx(by_gradient, rel=0.1)


def test_an_image_that_is_not_finite_is_an_error() -> None:
    data = gaussian(edm())

    class Broken:
        process, sample_shape = data.process, data.sample_shape

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return x * float("nan")

    with pytest.raises(EvaluationFailed, match="not finite"):
        _polish(published.ddim(edm(), nfe=2), _WITHOUT, denoiser=Broken())


def test_what_lacks_a_gradient_is_named() -> None:
    data = gaussian(edm())
    (batch,) = NoiseBank(data, torch.device("cpu")).batches(0, 2, 2)
    assert gradient_problem(data, extractor_of(lambda x: x.flatten(1)), batch) is None
    for features in (_in_inference, _by_numpy):
        problem = gradient_problem(data, extractor_of(features), batch)
        assert problem is not None

    class Silent:
        process, sample_shape = data.process, data.sample_shape

        @torch.no_grad()
        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return data(x, t)

    problem = gradient_problem(Silent(), extractor_of(lambda x: x.flatten(1)), batch)
    assert problem is not None
    assert "network's answer carries no gradient" in problem


def test_gains_say_what_was_polished_by_differences() -> None:
    schedule = published.ddim(edm(), nfe=2)
    made = _polish(schedule, _WITHOUT).made
    question = Polish(
        trial=Trial.of(schedule, seeded("given")), iterations=1, n_images=4, seed=0, noise_seed=0
    )
    gains = Gains(2)
    gains.begin("polish 1")
    gains.add([Answer(question=question, value=made)])
    content = gains.content({})
    assert "1 polishings by differences" in "\n".join(gain_lines([content]))
