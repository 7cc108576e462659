"""The embedded model: what the packaged file holds, and that training makes such a file again."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from s3search.errors import InvalidConfig
from s3search.models import digits
from s3search.models.digits_training import train

N = 16


def _state(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(10, (N,), generator=generator)


def _levels(sigma: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((N,), sigma, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_denoiser_keeps_shape_and_dtype(dtype: torch.dtype) -> None:
    x, labels = _state(dtype=dtype)
    x0 = digits.load()(x, _levels(1.0, dtype), labels)
    assert x0.shape == x.shape
    assert x0.dtype == dtype
    assert x0.isfinite().all()


def test_denoiser_returns_a_state_without_noise_unchanged() -> None:
    x, labels = _state(dtype=torch.float64)
    denoiser = digits.load()
    assert torch.equal(denoiser(x, _levels(0.0, torch.float64), labels), x)
    assert (denoiser(x, _levels(1e-5, torch.float64), labels) - x).abs().max() < 1e-3


def test_denoiser_sees_an_image_through_moderate_noise() -> None:
    real, shown = digits.images()[:256], digits.labels()[:256]
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(1))
    found = digits.load()(real + 0.5 * noise, torch.full((256,), 0.5), shown)
    assert (found - real).square().mean() < 0.25 * 0.5**2


def test_denoiser_at_the_noisy_end_returns_the_mean_of_the_class() -> None:
    real, shown = digits.images(), digits.labels()
    means = torch.stack([real[shown == digit].mean(0) for digit in range(10)])
    noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    found = digits.load()(80.0 * noise, torch.full((10,), 80.0), torch.arange(10))
    assert (found - means).square().mean().sqrt() < 0.15


def test_batch_size_does_not_change_an_image() -> None:
    x, labels = _state()
    denoiser = digits.load()
    together = denoiser(x, _levels(2.0), labels)
    alone = torch.cat(
        [denoiser(x[i : i + 1], _levels(2.0)[:1], labels[i : i + 1]) for i in range(N)]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_no_label_is_the_null_label_and_differs_from_a_class() -> None:
    x, labels = _state()
    denoiser = digits.load()
    unconditional = denoiser(x, _levels(3.0))
    null = torch.full((N,), digits.NULL_LABEL)
    assert torch.equal(unconditional, denoiser(x, _levels(3.0), null))
    assert (unconditional - denoiser(x, _levels(3.0), labels)).abs().mean() > 0.01


def test_guidance_of_one_is_the_plain_denoiser_and_two_extrapolates() -> None:
    x, labels = _state()
    t = _levels(3.0)
    plain = digits.load()
    null, given = plain(x, t), plain(x, t, labels)
    assert torch.equal(digits.load(guidance_scale=1.0)(x, t, labels), given)
    guided = digits.load(guidance_scale=2.0)
    torch.testing.assert_close(guided(x, t, labels), 2 * given - null, rtol=0, atol=1e-4)
    torch.testing.assert_close(guided(x, t), null)


def test_condition_draws_every_class_equally_often_or_nothing() -> None:
    drawn = [digits.load().condition(500, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(drawn[0]["labels"], drawn[1]["labels"])
    assert drawn[0]["labels"].bincount().tolist() == [50] * 10
    assert drawn[0]["labels"].tolist() != sorted(drawn[0]["labels"].tolist())
    assert digits.load("none").condition(500, torch.Generator()) == {}


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("labels", {"labels": "unifrom"}),
        ("guidance_scale", {"guidance_scale": math.nan}),
        ("guidance_scale", {"guidance_scale": "2"}),
        ("guidance_scale", {"labels": "none", "guidance_scale": 2.0}),
        ("weights", {"weights": "nowhere.safetensors"}),
    ],
)
def test_wrong_option_is_a_config_error_that_names_it(
    field: str, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidConfig, match=field):
        digits.load(**options)  # type: ignore[arg-type] # wrong on purpose


def test_file_of_another_network_is_a_config_error_that_names_it(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"denoiser.first.weight": torch.zeros(3)}, other)
    with pytest.raises(InvalidConfig, match=r"other\.safetensors"):
        digits.load(weights=other)


def test_unknown_feature_network_is_a_config_error() -> None:
    with pytest.raises(InvalidConfig, match="network"):
        digits.features("c")  # type: ignore[arg-type] # wrong on purpose


def test_real_images_fill_the_range() -> None:
    real = digits.images()
    assert real.shape == (1797, 1, 8, 8)
    assert real.dtype == torch.float32
    assert (real.min().item(), real.max().item()) == (-1.0, 1.0)
    assert real.square().mean().sqrt().item() == pytest.approx(digits.SIGMA_DATA, abs=0.01)
    assert digits.labels().bincount().min() > 170


@pytest.mark.parametrize("network", ["a", "b"])
def test_feature_network_tells_digits_apart_in_standardised_features(
    network: digits.Network,
) -> None:
    module, real = digits.features(network), digits.images()
    found = module(real)
    assert module.name == f"digits-{network}"
    assert found.shape == (1797, 64)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean(0), torch.zeros(64), rtol=0, atol=0.02)
    torch.testing.assert_close(found.std(0), torch.ones(64), rtol=0, atol=0.02)
    assert (module.logits(real).argmax(1) == digits.labels()).float().mean() > 0.99


def test_feature_networks_differ_and_clamp_their_images() -> None:
    real = digits.images()[:100]
    a, b = digits.features("a"), digits.features("b")
    assert (a(real) - b(real)).abs().mean() > 0.1
    assert torch.equal(a(3 * real), a((3 * real).clamp(-1, 1)))


def test_packaged_file_is_small_and_frozen() -> None:
    assert digits.WEIGHTS.stat().st_size < 4_000_000
    for module in (digits.load(), digits.features()):
        assert not module.training
        assert all(value.dtype == torch.float32 for value in module.parameters())
        assert not any(value.requires_grad for value in module.parameters())


def test_loading_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    digits.load()
    digits.features()
    assert torch.equal(before, torch.get_rng_state())


def test_training_is_bit_reproducible_and_writes_a_loadable_file(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    told: list[str] = []
    paths = [tmp_path / name for name in ("one", "two", "other_seed")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        summary = train(
            path,
            seed=seed,
            iterations=5,
            classifier_iterations=5,
            progress=lambda stage, *_: told.append(stage),
        )
        assert math.isfinite(summary["denoiser_loss"])
    assert torch.equal(before, torch.get_rng_state())
    one, two, other = (path.read_bytes() for path in paths)
    assert one == two
    assert one != other
    assert set(told) == {"denoiser", "features_a", "features_b"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other_seed", "two"]
    x, labels = _state()
    assert digits.load(weights=paths[0])(x, _levels(1.0), labels).isfinite().all()
    assert digits.features("b", weights=paths[0])(x).isfinite().all()
