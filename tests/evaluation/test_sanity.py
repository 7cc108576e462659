"""The sanity check: what it calls wrong, by name, and what it leaves in peace."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import CheckRequest, Finding, Status
from tests.support import pipelines, slips
from tests.support.specs import evaluator_spec

HERE = "tests.support.slips"
PLUGINS = "tests.support.plugins"

NAMED = {
    "epsilon": "this looks like epsilon, the noise: wrap it in `s3search.models.from_epsilon(net",
    "v": "this looks like v = alpha eps - sigma x0: wrap it in `s3search.models.from_v(net",
    "v as epsilon": "is taken for epsilon, the noise and looks like v = alpha eps - sigma x0",
    "sign": "answers the velocity eps - x0 with the other sign: negate it",
    "sign by hand": "answers the velocity eps - x0 with the other sign: negate it",
    "unit range": "it seems to make images in [0, 1], the reference has them in [-1, 1]",
    "index": "its network seems to expect times as 1000 t, an index from 0 to 999",
    "fraction": "its network seems to expect times as t / 1000, in [0, 1]",
    "index by hand": "its network seems to expect times as 1000 t, an index from 0 to 999",
    "dropout": "two calls with the same states and times differ by",
    "shape": "returned the shape (2, 1, 4, 8); it must return the clean image",
}


def findings(**spec: Any) -> tuple[Finding, ...]:
    """What is found of the digits here, unless told otherwise."""
    usual = {"model": f"{HERE}:load", "features": f"{HERE}:pixels", "reference": f"{HERE}:images"}
    found = Evaluator(evaluator_spec(**{**usual, **spec}))(CheckRequest())
    assert isinstance(found, tuple)
    return tuple(each for each in found if isinstance(each, Finding))


def errors(found: tuple[Finding, ...]) -> list[str]:
    return [each.message for each in found if each.status is Status.ERROR]


def warned(found: tuple[Finding, ...]) -> list[str]:
    return [each.message for each in found if each.status is Status.WARNING]


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    """The reference as a file of statistics: no image is at hand."""
    flat = slips.images().flatten(1).double().numpy()
    np.savez(tmp_path / "real.npz", mu=flat.mean(0), sigma=np.cov(flat, rowvar=False))
    return tmp_path / "real.npz"


@pytest.mark.parametrize("slip", NAMED)
def test_a_slip_is_named(slip: str) -> None:
    (message,) = errors(findings(model_options={"slip": slip}))
    assert NAMED[slip] in message
    assert message.startswith(f"model.loader: '{HERE}:load': ")


@pytest.mark.parametrize("slip", ["epsilon", "v", "v as epsilon", "sign", "index", "fraction"])
def test_a_slip_is_named_without_real_images(slip: str, statistics: Path) -> None:
    options = {"path": str(statistics)}
    found = findings(model_options={"slip": slip}, reference="npz", reference_options=options)
    (message,) = errors(found)
    assert NAMED[slip] in message
    assert "images that it made itself" in message


def test_a_reference_in_the_unit_range_is_named() -> None:
    found = findings(reference=f"{__name__}:unit_images")
    (message,) = errors(found)
    assert "the reference has images in [0, 1], the model makes them in [-1, 1]" in message


def unit_images() -> Tensor:
    return slips.images() / 2 + 0.5


def test_a_conditional_model_of_the_unit_range_is_named() -> None:
    (message,) = errors(findings(model=f"{__name__}:conditional"))
    assert "as of images in [0, 1]; [reference] has [-1, 1]: give the model `decode" in message


def conditional() -> Any:
    exact = slips.exact(slips.edm(), unit=True)

    class Conditional(slips.Denoiser):
        def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
            return {"labels": torch.zeros(n)}

        def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            return exact(x, t)

    return Conditional(exact, slips.edm())


def test_swapped_channels_are_named() -> None:
    found = findings(
        model=f"{__name__}:blue", reference=f"{__name__}:red", features=f"{PLUGINS}:pixels"
    )
    (message,) = errors(found)
    assert "it seems to order the channels the other way round (BGR for RGB)" in message


def red() -> Tensor:
    """Images whose first channel says all."""
    digits = slips.images()
    return torch.cat([digits, torch.full_like(digits, -0.9), torch.full_like(digits, 0.1)], 1)


def blue() -> Any:
    weights = torch.full((slips.N,), 1 / slips.N)
    stds = torch.full((slips.N,), 0.1)
    return slips.GaussianMixture(slips.edm(), red().flip(1), stds, weights)


def test_an_extractor_of_another_size_is_named(statistics: Path) -> None:
    options = {"path": str(statistics)}
    arguments: dict[str, Any] = {"reference": "npz", "reference_options": options}
    (message,) = errors(findings(features_options={"tail": 3}, **arguments))
    assert f"metric.features: '{HERE}:pixels' makes 61 features of an image" in message
    assert "the statistics of [reference] have 64" in message
    (message,) = errors(findings(features=f"{HERE}:maps", **arguments))
    assert "metric.features: expected (B, d) features" in message


def test_a_second_extractor_is_checked_too() -> None:
    found = findings(second_features=f"{HERE}:pixels", second_options={"tail": 1})
    assert [each.check for each in found].count("features") == 2
    assert errors(found) == []


def test_an_extractor_that_fails_on_the_models_images_is_named() -> None:
    found = findings(
        model=f"{__name__}:grey_of_colour",
        features=f"{__name__}:of_colour",
        reference=f"{__name__}:red",
    )
    (message,) = errors(found)
    assert f"metric.features: '{__name__}:of_colour' failed on the model's images" in message
    assert "with ValueError: three channels" in message
    assert "those of [reference] are (3, 8, 8)" in warned(found)[0]


def grey_of_colour() -> Any:
    return slips.exact(slips.edm())


def of_colour() -> Any:
    def features(found: Tensor) -> Tensor:
        if found.shape[1] != 3:
            raise ValueError("three channels")
        return found.flatten(1)

    return features


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"model": f"{__name__}:not_callable"}, "returned a denoiser that is no callable D"),
        ({"model": f"{__name__}:no_process"}, "returned a denoiser of an unknown process: 'edm'"),
        ({"model": f"{__name__}:no_shape"}, "needs the shape of one sample"),
    ],
)
def test_what_is_no_denoiser_is_named(spec: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        findings(**spec)
    assert words in str(refused.value)


def not_callable() -> Any:
    class Nothing:
        process, sample_shape = slips.edm(), slips.SHAPE

    return Nothing()


def no_process() -> Any:
    found: Any = slips.exact(slips.edm())
    found.process = "edm"
    return found


def no_shape() -> Any:
    found: Any = slips.exact(slips.edm())
    found.sample_shape = (8, 0)
    return found


# --- what is left in peace ---


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": f"{HERE}:load", "reference": f"{__name__}:noisier"},
        {"model": "digits", "features": "digits", "reference": "digits"},
        {"model": "digits", "model_options": {"labels": "none"}},
        {"model": "digits", "model_options": {"guidance_scale": 2.0}},
        {
            "model": f"{PLUGINS}:gaussian",
            "features": f"{PLUGINS}:pixels",
            "reference": f"{PLUGINS}:images",
        },
    ],
    ids=["exact", "other images", "digits", "no labels", "guided", "gaussian"],
)
def test_a_good_model_passes_without_a_word(spec: dict[str, Any]) -> None:
    found = findings(**spec)
    assert errors(found) + warned(found) == []
    checks = {"answers", "denoising", "determinism", "batches", "images", "features", "gradient"}
    checks |= {"gaussian", "mixture", "race", "second metric", "real images"}
    assert {each.check for each in found} - {"noisy end"} == checks


def test_a_metric_without_a_gradient_is_a_warning_with_its_reason() -> None:
    found = findings(features=f"{HERE}:pixels_in_inference")
    assert errors(found) == []
    (message,) = warned(found)
    assert "by differences" in message
    assert "inference_mode" in message


def noisier() -> Tensor:
    """The images with as much noise as the model's components have."""
    noise = torch.randn(slips.images().shape, generator=torch.Generator().manual_seed(1))
    return (slips.images() + 0.1 * noise).clamp(-1, 1)


def test_a_good_model_is_asked_a_few_times() -> None:
    evaluator = Evaluator(
        evaluator_spec(model=f"{HERE}:load", features=f"{HERE}:pixels", reference=f"{HERE}:images")
    )
    calls: list[int] = []
    evaluator.denoiser.network.register_forward_hook(lambda *_: calls.append(1))
    evaluator(CheckRequest())
    assert len(calls) == 8 + 6 + 1  # its shape, five levels, again, half; six units of time; grad


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["ddpm", "score", "ldm", "dit", "flux"])
def test_untrained_pipelines_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("diffusers", reason="needs diffusers: s3search[diffusers]")
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path / "cache"))
    folder = getattr(pipelines, kind)(tmp_path / "pipe")
    options: dict[str, Any] = {"path": str(folder)}
    if kind == "flux":
        (tmp_path / "prompts.txt").write_text("a\nb c\nd\ne")
        prompts = str(tmp_path / "prompts.txt")
        options |= {"prompts": prompts, "held_out": 0, "height": 16, "width": 16}
    support = "tests.support.pipelines"
    found = findings(
        model="diffusers",
        model_options=options,
        features=f"{support}:pooled",
        reference=f"{support}:references",
    )
    assert errors(found) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slip", ["epsilon", "v", "velocity", "sample"])
def test_untrained_networks_are_no_error(slip: str, seed: int) -> None:
    options = {"kind": slip, "seed": seed}
    assert errors(findings(model=f"{__name__}:untrained", model_options=options)) == []


def untrained(kind: str, seed: int) -> Any:
    """A small network of random weights, in every wrapping."""
    from s3search import models  # noqa: PLC0415

    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(64, 64, generator=generator) / 8 for _ in range(2))

    def net(x: Tensor, t: Tensor) -> Tensor:
        hidden = torch.tanh(x.flatten(1) @ first + t[:, None] / 1000)
        return (hidden @ second).view_as(x)

    process = slips.flow() if kind == "velocity" else slips.vp_discrete()
    return getattr(models, f"from_{kind}")(net, process, sample_shape=slips.SHAPE)
