"""Skip connections of U-Nets, scaled by a schedule."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s3search.errors import EvaluationFailed
from s3search.evaluation.decoding import patched
from s3search.models import digits
from s3search.models.edm import unets
from s3search.models.edm.denoiser import EdmDenoiser
from s3search.models.layer_skip import one_image
from s3search.models.skip_scale import ScaledCalls, links_of
from s3search.schedules import published
from s3search.schedules.layers import with_skipped
from s3search.schedules.schedule import ModelPatch, Schedule
from tests.models.edm.pickled import with_weights
from tests.models.edm.test_edm import CONFIGS
from tests.models.test_layer_skip import adm_denoiser, latent_unet_denoiser, unet_denoiser


def song_denoiser() -> nn.Module:
    return with_weights(EdmDenoiser(CONFIGS["ddpm++"])).eval()


def residual_denoiser() -> nn.Module:
    return with_weights(EdmDenoiser(CONFIGS["ncsn++"])).eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "unet": (unet_denoiser, 6),
    "latent unet": (latent_unet_denoiser, 4),
    "ddpm++": (song_denoiser, 4),
    "ncsn++": (residual_denoiser, 4),
    "adm": (adm_denoiser, 6),
}


@pytest.fixture(params=list(MODELS), name="named")
def _named(request: pytest.FixtureRequest) -> tuple[Any, int]:
    make, n = MODELS[request.param]
    return make(), n


def _answer(denoiser: Any, changed: Any) -> Tensor:
    x, t, condition = one_image(denoiser)
    with torch.inference_mode():
        answer: Tensor = changed(x, t, **condition)
    return answer


def _schedule(denoiser: Any, factors: tuple[float, ...]) -> Schedule:
    plain = published.ddim(denoiser.process, nfe=2)
    return plain.model_copy(update={"model_patch": ModelPatch(skip_scale=factors)})


def test_every_link_is_found_scaled_and_put_back(named: tuple[Any, int]) -> None:
    denoiser, n = named
    assert len(links_of(denoiser)) == n
    usual = _answer(denoiser, denoiser)
    answers = []
    for k in range(n):
        factors = tuple(0.5 if k == j else 1.0 for j in range(n))
        answers.append(_answer(denoiser, patched(denoiser, _schedule(denoiser, factors))))
        assert torch.equal(_answer(denoiser, denoiser), usual)
    assert all(not torch.equal(answer, usual) for answer in answers)
    assert len({answer.numpy().tobytes() for answer in answers}) == n
    assert patched(denoiser, _schedule(denoiser, (1.0,) * n)) is denoiser


def test_links_of_edm_are_numbered_as_the_encoder_makes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denoiser = song_denoiser()
    factors = (0.9, 0.8, 0.7, 0.6)
    found = _answer(denoiser, patched(denoiser, _schedule(denoiser, factors)))
    usual = unets._joined

    def joined(module: Any, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        if x.shape[1] != module.in_channels:
            skips[-1] = skips[-1] * factors[len(skips) - 1]
        return usual(module, x, emb, skips)

    monkeypatch.setattr(unets, "_joined", joined)
    assert torch.equal(_answer(denoiser, denoiser), found)


@pytest.mark.parametrize(
    ("make", "first", "last"),
    [
        (unet_denoiser, "network.conv_in", "network.up_blocks.1.resnets.2"),
        (latent_unet_denoiser, "network.conv_in", "network.up_blocks.1.resnets.1"),
        (adm_denoiser, "network.input_blocks.0", "network.output_blocks.5.0"),
    ],
)
def test_link_0_goes_from_the_first_picture_to_the_last_block(
    make: Callable[[], nn.Module], first: str, last: str
) -> None:
    denoiser = make()
    seen: list[Tensor] = []
    hooks = [
        denoiser.get_submodule(first).register_forward_hook(lambda _, __, out: seen.append(out)),
        denoiser.get_submodule(last).register_forward_pre_hook(
            lambda _, args: seen.append(args[0])
        ),
    ]
    links = links_of(denoiser)
    _answer(denoiser, ScaledCalls(denoiser, links, (0.25, *[1.0] * (len(links) - 1))))
    for hook in hooks:
        hook.remove()
    made, taken = seen
    assert torch.equal(taken[:, -made.shape[1] :], 0.25 * made)


def test_layers_and_links_change_together() -> None:
    denoiser = unet_denoiser()
    scaled = _schedule(denoiser, (0.5,) * 6)
    both = with_skipped(scaled, [(0, 3), ()])
    assert both.model_patch is not None and both.model_patch.skip_scale == (0.5,) * 6
    x, t, condition = one_image(denoiser)
    changed, alone = patched(denoiser, both), patched(denoiser, scaled)
    with torch.inference_mode():
        first, second = (changed(x, t, **condition) for _ in range(2))
        only_scaled = alone(x, t, **condition)
    assert torch.equal(second, only_scaled) and not torch.equal(first, only_scaled)


def test_another_number_of_links_is_refused() -> None:
    with pytest.raises(EvaluationFailed, match=r"3 skip connections, .* network has 6; remove"):
        patched(unet_denoiser(), _schedule(unet_denoiser(), (0.9,) * 3))
    with pytest.raises(EvaluationFailed, match=r"1 skip connections, this model has none"):
        patched(digits.load(), _schedule(digits.load(), (0.9,)))
