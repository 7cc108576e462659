"""Blocks left out of networks: found, counted, handed around, and put back."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import (
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from s3search.errors import EvaluationFailed
from s3search.evaluation.decoding import patched
from s3search.models import digits
from s3search.models.edm.denoiser import EdmDenoiser
from s3search.models.edm.unets import SongConfig
from s3search.models.guided_diffusion import AdmDenoiser
from s3search.models.guided_diffusion.settings import AdmConfig, ClassifierConfig
from s3search.models.layer_skip import Blocks, SkippingCalls, blocks_of, multiply_adds, one_image
from s3search.processes import edm, vp_linear
from s3search.schedules import published
from s3search.schedules.layers import skipped_by_call, with_skipped
from s3search.schedules.schedule import ModelPatch, Start
from tests.models.edm.pickled import with_weights
from tests.support import plugins
from tests.support.pipelines import unet

Answer = Callable[[Any, Tensor, Tensor], Tensor]


class Wrapped(nn.Module):
    """A network of diffusers as a denoiser."""

    process = vp_linear()

    def __init__(self, network: nn.Module, shape: tuple[int, int, int], answer: Answer) -> None:
        super().__init__()
        self.network, self.sample_shape, self._answer = network, shape, answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self._answer(self.network, x, t)


def unet_denoiser() -> nn.Module:
    network = unet(
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return Wrapped(network, (3, 8, 8), lambda n, x, t: n(x, t, return_dict=False)[0])


def dit_denoiser() -> nn.Module:
    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        num_layers=3,
        sample_size=8,
        norm_num_groups=4,
        num_embeds_ada_norm=10,
    ).eval()

    def answer(n: Any, x: Tensor, t: Tensor) -> Tensor:
        labels = torch.zeros(len(x), dtype=torch.int64)
        found: Tensor = n(x, t, class_labels=labels, return_dict=False)[0]
        return found[:, :4]

    return Wrapped(network, (4, 8, 8), answer)


def latent_unet_denoiser() -> nn.Module:
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        transformer_layers_per_block=2,
    ).eval()
    text = torch.randn(1, 5, 16)

    def answer(n: Any, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = n(x, t, text.expand(len(x), -1, -1), return_dict=False)[0]
        return found

    return Wrapped(network, (4, 8, 8), answer)


def joint_denoiser() -> nn.Module:
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    ).eval()
    text, pooled = torch.randn(1, 5, 16), torch.randn(1, 16)

    def answer(n: Any, x: Tensor, t: Tensor) -> Tensor:
        given = text.expand(len(x), -1, -1), pooled.expand(len(x), -1)
        found: Tensor = n(x, *given, t, return_dict=False)[0]
        return found

    return Wrapped(network, (4, 8, 8), answer)


def flux_denoiser() -> nn.Module:
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    text, pooled = torch.randn(1, 5, 16), torch.randn(1, 16)

    def answer(n: Any, x: Tensor, t: Tensor) -> Tensor:
        given = text.expand(len(x), -1, -1), pooled.expand(len(x), -1)
        ids = torch.zeros(64, 3), torch.zeros(5, 3)
        tokens = n(x.flatten(2).mT, *given, t, *ids, return_dict=False)[0]
        found: Tensor = tokens.mT.reshape(x.shape)
        return found

    return Wrapped(network, (4, 8, 8), answer)


def edm_denoiser() -> nn.Module:
    config = SongConfig(
        img_resolution=8,
        label_dim=3,
        model_channels=8,
        channel_mult=(1, 2),
        num_blocks=2,
        attn_resolutions=(4,),
    )
    return with_weights(EdmDenoiser(config)).eval()


def adm_denoiser() -> nn.Module:
    shape = {"image_size": 8, "num_channels": 32, "num_res_blocks": 2, "channel_mult": "1,2"}
    config = AdmConfig(**shape, attention_resolutions="4", num_head_channels=16)
    guide = ClassifierConfig(
        image_size=8,
        classifier_width=64,
        classifier_depth=1,
        channel_mult="1,1",
        classifier_attention_resolutions="4",
        n_classes=5,
    )
    return with_weights(AdmDenoiser(config, guide)).eval()


MODELS = {
    "digits": (digits.load, {"_Block": 3}),
    "guided digits": (lambda: digits.load(guidance_scale=2.0), {"_Block": 3}),
    "unet": (unet_denoiser, {"ResnetBlock2D": 5, "Attention": 6}),
    "latent unet": (
        latent_unet_denoiser,
        {"ResnetBlock2D": 3, "Transformer2DModel": 4, "BasicTransformerBlock": 8},
    ),
    "dit": (dit_denoiser, {"BasicTransformerBlock": 3}),
    "sd3": (joint_denoiser, {"JointTransformerBlock": 3}),
    "flux": (flux_denoiser, {"FluxTransformerBlock": 2, "FluxSingleTransformerBlock": 2}),
    "edm": (edm_denoiser, None),
    "adm": (adm_denoiser, None),
}


@pytest.fixture(params=list(MODELS), name="named")
def _named(request: pytest.FixtureRequest) -> tuple[Any, Blocks, dict[str, int] | None]:
    make, kinds = MODELS[request.param]
    denoiser = make()
    return denoiser, blocks_of(denoiser), kinds


def _kinds(blocks: Blocks) -> dict[str, int]:
    kinds = [layer.kind for layer in blocks.layers.layers]
    return {kind: kinds.count(kind) for kind in kinds}


def _forwards(denoiser: nn.Module) -> list[str]:
    return [name for name, m in denoiser.named_modules() if "forward" in m.__dict__]


def _answer(denoiser: Any, *skipped: int) -> Tensor:
    x, t, condition = one_image(denoiser)
    with torch.inference_mode(), blocks_of(denoiser).left_out(skipped):
        answer: Tensor = denoiser(x, t, **condition)
    return answer


def test_residual_blocks_are_found_and_their_cost_is_that_of_the_call_without_them(
    named: tuple[Any, Blocks, dict[str, int] | None],
) -> None:
    denoiser, blocks, kinds = named
    layers = blocks.layers
    assert layers.layers
    assert kinds is None or _kinds(blocks) == kinds
    x, t, condition = one_image(denoiser)
    n = len(layers.layers)
    for skipped in [(), *((i,) for i in range(n)), tuple(range(0, n, 2)), tuple(range(n))]:
        with blocks.left_out(skipped):
            measured = multiply_adds(lambda: denoiser(x, t, **condition))
        assert layers.call_cost(skipped) * layers.multiply_adds == pytest.approx(
            measured, rel=1e-9
        )
    assert 0.0 < layers.call_cost(range(n)) < 0.9
    assert _forwards(denoiser) == []


@pytest.mark.parametrize("name", ["digits", "unet", "flux"])
def test_multiply_adds_are_those_of_torchs_own_counter(name: str) -> None:
    denoiser: Any = MODELS[name][0]()
    layers = blocks_of(denoiser).layers
    x, t, condition = one_image(denoiser)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        denoiser(x, t, **condition)
    assert 2 * layers.multiply_adds == counter.get_total_flops()


def test_leaving_a_block_out_changes_the_answer_and_leaves_no_trace(
    named: tuple[Any, Blocks, dict[str, int] | None],
) -> None:
    denoiser, blocks, _ = named
    whole = _answer(denoiser)
    for i in range(len(blocks.layers.layers)):
        changed = _answer(denoiser, i)
        assert changed.shape == whole.shape and changed.isfinite().all()
        assert not torch.equal(changed, whole), blocks.layers.layers[i].name
        assert torch.equal(_answer(denoiser), whole)


def test_a_block_left_out_hands_its_input_on() -> None:
    denoiser = digits.load()
    x, t, condition = one_image(denoiser)
    blocks = blocks_of(denoiser)
    seen: list[Tensor] = []
    hooks = [
        denoiser.blocks[0].register_forward_hook(lambda _, __, out: seen.append(out)),
        denoiser.blocks[2].register_forward_pre_hook(lambda _, given: seen.append(given[0])),
    ]
    with blocks.left_out([1]):
        denoiser(x, t, **condition)
    for hook in hooks:
        hook.remove()
    assert torch.equal(seen[0], seen[1])


def test_a_network_is_whole_again_after_an_error() -> None:
    denoiser = digits.load()

    def fails(*_: Any) -> None:
        raise RuntimeError("in mid-call")

    hook = denoiser.norm.register_forward_pre_hook(fails)
    calls = SkippingCalls(denoiser, _with_blocks(denoiser), [(0, 2)])
    x, t, condition = one_image(denoiser)
    with pytest.raises(RuntimeError, match="mid-call"):
        calls(x, t, **condition)
    hook.remove()
    assert _forwards(denoiser) == []


def _with_blocks(denoiser: nn.Module) -> Blocks:
    """Those of a second copy, found where no hook fails, for this one."""
    found = blocks_of(digits.load())
    parts = tuple(
        replace(part, module=module)
        for part, module in zip(found.parts, denoiser.blocks, strict=True)  # type: ignore[arg-type] # a list
    )
    return replace(found, parts=parts)


def test_a_forward_of_its_own_is_put_back() -> None:
    denoiser = digits.load()
    blocks = blocks_of(denoiser)
    module: Any = denoiser.blocks[0]
    usual = module.forward
    module.forward = own = partial(usual)
    with blocks.left_out([0]):
        assert module.forward is not own
    assert module.forward is own


def test_every_call_leaves_out_its_own_blocks() -> None:
    denoiser = digits.load()
    schedule = with_skipped(published.ddim(edm(), nfe=3), [(), (0, 2), (1,)])
    changed = patched(denoiser, schedule)
    x, t, condition = one_image(denoiser)
    made = [changed(x, t, **condition) for _ in range(3)]
    expected = [_answer(denoiser), _answer(denoiser, 0, 2), _answer(denoiser, 1)]
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))
    assert changed.sample_shape == denoiser.sample_shape


def test_a_schedule_that_leaves_nothing_out_runs_the_denoiser_itself() -> None:
    denoiser = digits.load()
    plain = published.ddim(edm(), nfe=2)
    listed = plain.model_copy(update={"model_patch": ModelPatch(skip_layers=((), ()))})
    assert patched(denoiser, listed) is denoiser
    assert patched(denoiser, plain) is denoiser


def test_wrong_numbers_and_models_without_blocks_are_refused() -> None:
    schedule = with_skipped(published.ddim(edm(), nfe=2), [(), (3,)])
    message = r"skip_layers\[1\]: there is no block 3, this network has blocks 0 to 2; .*inspect"
    with pytest.raises(EvaluationFailed, match=message):
        patched(digits.load(), schedule)
    with pytest.raises(EvaluationFailed, match=r"left out of a torch.nn.Module"):
        patched(plugins.gaussian(), schedule)


def test_an_analytic_start_makes_no_call_to_leave_blocks_out_of() -> None:
    plain = published.ddim(edm(), nfe=2)
    start = Start(kind="zero_x0")
    schedule = with_skipped(plain.model_copy(update={"start": start}), [(0,), (1,)])
    assert skipped_by_call(schedule) == ((1,),)
    with pytest.raises(EvaluationFailed, match=r"skip_layers\[0\]: step 0 starts without"):
        patched(digits.load(), schedule)


def test_calls_that_no_step_starts_with_are_whole() -> None:
    corrected = published.heun(edm(), nfe=3)
    assert skipped_by_call(with_skipped(corrected, [(0,), (1,)])) == ((0,), (), (1,))
