"""Evaluations: common noise, provenance, and every way in which a plug-in can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s3search.errors import EvaluationFailed, InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.spec import EvaluatorSpec
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.intervals import replicates
from s3search.models import digits
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch
from s3search.search.questions import Measure, RealImages, Rung, measure
from s3search.solvers.step_noise import BLOCK
from tests.support import plugins
from tests.support.specs import evaluator_spec

SECOND = {"second_features": "tests.support.plugins:squares", "second_options": {"power": 2}}
SCHEDULE = published.unipc(edm(), nfe=4)


def _spec(**changes: Any) -> EvaluatorSpec:
    fields: dict[str, Any] = {
        "model": "tests.support.plugins:gaussian",
        "features": "tests.support.plugins:pixels",
        "reference": "tests.support.plugins:images",
    }
    return evaluator_spec(**(fields | changes))


def _question(
    n_images: int = 250, seed: int = 0, schedule: Any = SCHEDULE, rung: Rung = Rung.SEARCH
) -> Measure:
    return measure(schedule, rung=rung, n_images=n_images, noise_seed=seed)


def test_noise_of_a_part_of_a_block_is_that_of_the_block() -> None:
    """A polish looks at few images of many noises, and solves no others finely."""
    bank = NoiseBank(digits.load(), torch.device("cpu"))
    ((whole, labels),) = bank.batches(5, 130, 200)
    parts = list(bank.batches(5, 130, 50, whole_blocks=False))
    assert torch.equal(torch.cat([noise for noise, _ in parts]), whole)
    joined = {key: torch.cat([given[key] for _, given in parts]) for key in labels}
    assert all(torch.equal(joined[key], labels[key]) for key in labels)
    ((more, _),) = bank.batches(5, 200, 200)
    assert torch.equal(more[:130], whole)


def test_an_evaluation_says_everything_it_needs() -> None:
    found = Evaluator(_spec()).evaluate(_question())
    assert found.trial.id == SCHEDULE.id
    assert (found.metric, found.extractor) == ("frechet", "tests.support.plugins:pixels")
    assert (found.n_images, found.question.noise_seed, found.trial.nfe) == (250, 0, 4)
    assert found.network_calls == 4 * 250
    assert found.reference_n == 500
    assert found.reference_digest
    assert found.model_fingerprint
    assert found.standard_error is not None
    assert found.sampling_seconds is not None
    assert 0 < found.sampling_seconds < found.seconds


def test_the_value_does_not_depend_on_the_batch_size() -> None:
    values = [
        Evaluator(_spec(batch_size=size)).evaluate(_question(350)).value
        for size in (1000, 100, 64, 7)
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


def test_guidance_call_by_call_begins_anew_with_every_batch() -> None:
    schedule = published.with_guidance(SCHEDULE, [1.0, 1.01, 1.02, 1.03])
    values = [
        Evaluator(_spec(model="tests.support.plugins:guided", batch_size=size))
        .evaluate(_question(350, schedule=schedule))
        .value
        for size in (1000, 100, 64)
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


def test_noise_is_common_nested_and_its_own_for_every_seed() -> None:
    denoiser = digits.load(labels="uniform")
    bank = NoiseBank(denoiser, torch.device("cpu"))

    def drawn(n: int, seed: int, batch: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
        batches = list(bank.batches(seed, n, batch))
        labels = torch.cat([condition["labels"] for _, condition in batches])
        return torch.cat([noise for noise, _ in batches]), labels

    many, many_labels = drawn(3 * BLOCK, seed=5)
    few, few_labels = drawn(BLOCK + 7, seed=5, batch=33)
    assert torch.equal(few, many[: BLOCK + 7])
    assert torch.equal(few_labels, many_labels[: BLOCK + 7])
    assert not torch.equal(drawn(BLOCK, seed=6)[0], many[:BLOCK])
    assert not torch.equal(many[:BLOCK], many[BLOCK : 2 * BLOCK])


def test_a_validation_has_the_replicates_of_its_features() -> None:
    evaluator = Evaluator(_spec(batch_size=70))
    found = evaluator.evaluate(_question(rung=Rung.VALIDATION))
    images = evaluator.images(SCHEDULE, 250, 0)
    by_hand = replicates(evaluator.reference, images.flatten(1).double().numpy())
    assert by_hand is not None
    np.testing.assert_allclose(found.replicates, by_hand, rtol=1e-9)
    assert evaluator.evaluate(_question()).replicates is None


def test_the_second_metric_sees_the_same_images_and_changes_nothing() -> None:
    alone, both = Evaluator(_spec()), Evaluator(_spec(**SECOND))
    other = Evaluator(_spec(features="tests.support.plugins:squares"))
    first, found, expected = (
        e.evaluate(_question(rung=Rung.VALIDATION)) for e in (alone, both, other)
    )
    assert (found.value, found.replicates) == (first.value, first.replicates)
    assert first.second is None
    assert found.second is not None
    assert found.second.value == expected.value
    assert found.second.replicates == expected.replicates
    assert found.second.standard_error == expected.standard_error
    assert (found.second.extractor, found.second.rung) == ("squares-2", Rung.SECOND_METRIC)
    assert found.second.reference_digest == expected.reference_digest != found.reference_digest
    assert (found.network_calls, found.second.network_calls) == (4 * 250, 0)
    assert both.evaluate(_question()).second is None
    assert both.describe().second_metric == ("squares-2", expected.reference_digest)


def test_real_images_have_the_distance_of_their_resampled_draws() -> None:
    evaluator = Evaluator(_spec(**SECOND))
    baselines = evaluator.real_images(RealImages(n_images=120, seed=1))
    real = plugins.images().flatten(1).double().numpy()
    for power, baseline in zip((1, 2), baselines, strict=True):
        features = real**power
        reference = FrechetReference.of(FeatureStatistics.of(features))
        rng = np.random.default_rng(1)
        expected = [
            reference.distance(FeatureStatistics.of(features[rng.integers(500, size=120)]))
            for _ in range(5)
        ]
        np.testing.assert_allclose(baseline.values, expected, rtol=1e-5)
        assert baseline.value == pytest.approx(np.mean(expected), rel=1e-5)
        assert (baseline.reference_n, baseline.n_images, baseline.seed) == (500, 120, 1)
    names = (
        ("tests.support.plugins:pixels", evaluator.reference.digest),
        evaluator.describe().second_metric,
    )
    assert tuple((found.extractor, found.reference_digest) for found in baselines) == names


def test_a_file_of_statistics_has_no_real_images_and_no_second_metric(tmp_path: Path) -> None:
    path = tmp_path / "statistics.npz"
    np.savez(path, mu=np.zeros(9), sigma=np.eye(9))
    of_file = {
        "reference": "tests.support.plugins:statistics",
        "reference_options": {"path": str(path)},
    }
    assert Evaluator(_spec(**of_file)).real_images(RealImages(n_images=100, seed=1)) == ()
    with pytest.raises(InvalidConfig, match=r"validation\.metric: .*needs real images"):
        Evaluator(_spec(**of_file, **SECOND))


def test_validation_alone_draws_the_conditions_that_are_held_out() -> None:
    evaluator = Evaluator(_spec(model="tests.support.plugins:prompted"))
    values = {
        rung: evaluator.evaluate(_question(rung=rung)).value
        for rung in (Rung.SEARCH, Rung.FINALS, Rung.USER, Rung.VALIDATION)
    }
    assert values[Rung.SEARCH] == values[Rung.FINALS] == values[Rung.USER]
    assert values[Rung.VALIDATION] > 10 * values[Rung.SEARCH]

    def brightness(held_out: bool) -> tuple[torch.Tensor, torch.Tensor]:
        bank = NoiseBank(plugins.prompted(), torch.device("cpu"))
        list(bank.batches(0, BLOCK, BLOCK, held_out=not held_out))  # it keeps both apart
        ((noise, condition),) = bank.batches(0, BLOCK, BLOCK, held_out=held_out)
        return noise, condition["bright"]

    (noise, seen), (again, held_out) = brightness(False), brightness(True)
    assert torch.equal(noise, again)
    torch.testing.assert_close(held_out, seen + 5.0)


def test_labels_of_other_noise_are_drawn_again() -> None:
    bank = NoiseBank(digits.load(), torch.device("cpu"))
    first, again, held_out = (
        next(bank.batches(seed, BLOCK, BLOCK, held_out=flag))[1]["labels"]
        for seed, flag in ((0, False), (1, False), (1, True))
    )
    assert not torch.equal(first, again)
    assert torch.equal(again, held_out)  # this model keeps no labels for validation


def test_a_full_noise_bank_forgets_and_draws_the_same_again() -> None:
    denoiser = digits.load(labels="none")
    tiny = NoiseBank(denoiser, torch.device("cpu"), max_bytes=1)
    first = [noise.clone() for noise, _ in tiny.batches(0, 3 * BLOCK, BLOCK)]
    again = [noise for noise, _ in tiny.batches(0, 3 * BLOCK, BLOCK)]
    assert all(map(torch.equal, first, again))


def test_a_bank_too_small_for_an_evaluation_keeps_what_it_can_of_the_latest_seed() -> None:
    drawn = list[int]()

    class Counting:
        process, sample_shape = edm(), (1, 8, 8)

        def condition(self, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
            drawn.append(n)
            return {"labels": torch.zeros(n, dtype=torch.int64)}

    block_bytes = BLOCK * (4 * 64 + 8)
    bank = NoiseBank(Counting(), torch.device("cpu"), max_bytes=3 * block_bytes)
    for seed, expected in ((0, 5), (0, 2), (1, 5), (1, 2), (0, 5)):
        drawn.clear()
        list(bank.batches(seed, 5 * BLOCK, BLOCK))
        assert len(drawn) == expected


def test_images_that_are_not_finite_fail_with_the_reason() -> None:
    with pytest.raises(EvaluationFailed, match="not finite"):
        Evaluator(_spec(model_options={"fail": True})).evaluate(_question())


def test_a_patched_network_is_refused_rather_than_ignored() -> None:
    patched = SCHEDULE.model_copy(update={"model_patch": ModelPatch(skip_scale=(0.9,))})
    with pytest.raises(EvaluationFailed, match="patches the network"):
        Evaluator(_spec()).evaluate(_question(schedule=patched))


def test_a_reference_may_be_a_file_of_statistics(tmp_path: Path) -> None:
    by_images = Evaluator(_spec())
    path = tmp_path / "statistics.npz"
    np.savez(path, mu=by_images.reference.mean, sigma=by_images.reference.covariance)
    by_file = Evaluator(
        _spec(reference="tests.support.plugins:statistics", reference_options={"path": str(path)})
    )
    assert by_file.reference.n is None
    found = by_file.evaluate(_question()).value
    assert found == pytest.approx(by_images.evaluate(_question()).value, rel=1e-12)


def test_the_fingerprint_names_parameters_and_options() -> None:
    def fingerprint(**options: Any) -> str:
        spec = _spec(model="digits", features="digits", reference="digits", model_options=options)
        return Evaluator(spec).model_fingerprint

    assert fingerprint() == fingerprint()
    assert fingerprint() != fingerprint(guidance_scale=2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "digitz"}, "did you mean 'digits'"),
        ({"model": "no_such_package:load"}, "cannot import 'no_such_package'"),
        ({"model": "tests.support.plugins:gausian"}, "did you mean 'gaussian'"),
        ({"model_options": {"second": 1}}, "did you mean 'seconds'"),
        ({"model": "tests.support.plugins:broken"}, "RuntimeError: no such checkpoint"),
        ({"model": "tests.support.plugins:nothing"}, "without 'process'"),
        ({"features": "tests.support.plugins:images"}, "not a callable"),
        ({"reference": "tests.support.plugins:bytes_images"}, "expected a float tensor"),
        (
            {
                "reference": "tests.support.plugins:statistics",
                "reference_options": {"path": "/no.npz"},
            },
            "/no.npz holds no mu and sigma",
        ),
        ({"second_features": "digitz"}, "validation.metric.features: .*did you mean 'digits'"),
        (
            {"second_features": "tests.support.plugins:squares", "second_options": {"pwoer": 3}},
            r"\[validation\.metric\] does not fit .*did you mean 'power'",
        ),
        ({"device": "cuda"}, "torch sees none"),
    ],
)
def test_a_wrong_plug_in_is_one_clear_sentence(changes: dict[str, Any], message: str) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so asking for one is not wrong")
    with pytest.raises(InvalidConfig, match=message):
        Evaluator(_spec(**changes))
