"""ADM checkpoints: the networks, what is made of their answers, and files that do not fit."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.models import guided_diffusion
from s3search.models.checkpoints import CONFIG_KEY
from s3search.models.edm.layers import Block
from s3search.models.edm.unets import DhariwalConfig, DhariwalUNet
from s3search.models.guided_diffusion import AdmDenoiser
from s3search.models.guided_diffusion.settings import AdmConfig, ClassifierConfig
from s3search.models.guided_diffusion.unet import UNet
from s3search.schedules import published
from s3search.search.questions import Rung, measure
from tests.models.edm.pickled import RunsCode, with_weights
from tests.support.specs import evaluator_spec

FLAGS: dict[str, Any] = {
    "image_size": 8,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "4",
    "num_head_channels": 16,
    "resblock_updown": True,
    "learn_sigma": True,
    "class_cond": True,
    "n_classes": 5,
}
GUIDE: dict[str, Any] = {
    "image_size": 8,
    "classifier_width": 64,
    "classifier_depth": 1,
    "channel_mult": "1,1",
    "classifier_attention_resolutions": "4",
    "n_classes": 5,
}


def _denoiser(guided: bool = False, flags: dict[str, Any] | None = None, **options: Any) -> Any:
    config = AdmConfig(**(FLAGS | (flags or {})))
    guide = ClassifierConfig(**GUIDE) if guided else None
    return with_weights(AdmDenoiser(config, guide, **options))


def _state(n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn((n, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    return x, torch.linspace(20.5, 900, n), torch.arange(n) % 5


def _saved(path: Path, module: nn.Module) -> str:
    torch.save(module.state_dict(), path)
    return str(path)


# --- the networks ---


def _copied(to: Block, block: Any, attention: Any, order: Tensor) -> None:
    pairs = [
        (to.norm0, block.in_layers[0]),
        (to.conv0, block.in_layers[2]),
        (to.affine, block.emb_layers[1]),
        (to.norm1, block.out_layers[0]),
        (to.conv1, block.out_layers[3]),
    ]
    if isinstance(block.skip_connection, nn.Conv2d):
        pairs.append((to.skip, block.skip_connection))
    if attention is not None:
        pairs += [(to.norm2, attention.norm), (to.proj, attention.proj_out)]
        to.qkv.weight.data = attention.qkv.weight.data[order, :, :, None]
        to.qkv.bias.data = attention.qkv.bias.data[order]
    for target, source in pairs:
        target.weight.data = source.weight.data.view_as(target.weight)
        target.bias.data = source.bias.data


def _blocks(network: UNet) -> Iterator[tuple[Any, Any]]:
    """(block, attention or None) in EDM's order."""
    middle = network.middle_block
    stages = [*network.input_blocks[1:], middle[:2], middle[2:], *network.output_blocks]
    for stage in stages:
        modules = list(stage)
        while modules:
            block = modules.pop(0)
            attends = bool(modules) and hasattr(modules[0], "qkv")
            yield block, modules.pop(0) if attends else None


@pytest.mark.parametrize("new_order", [False, True])
def test_it_is_the_network_that_edm_calls_adm(new_order: bool) -> None:
    config = AdmConfig(
        image_size=8,
        num_channels=128,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(4,),
        num_head_channels=64,
        resblock_updown=True,
        use_new_attention_order=new_order,
        class_cond=True,
        n_classes=5,
    )
    network = with_weights(UNet(config.shape))
    other = DhariwalUNet(
        DhariwalConfig(
            img_resolution=8,
            label_dim=5,
            model_channels=128,
            channel_mult=(1, 1),
            num_blocks=1,
            attn_resolutions=(4,),
        )
    ).requires_grad_(False)
    shape, axes = ((3, 2, 64), (1, 2, 0)) if new_order else ((2, 3, 64), (0, 2, 1))
    order = torch.arange(3 * 128).view(shape).permute(axes).flatten()
    targets = [m for part in (other.enc, other.dec) for m in part.values() if isinstance(m, Block)]
    for target, (block, attention) in zip(targets, _blocks(network), strict=True):
        _copied(target, block, attention, order)
    assert other.map_label is not None
    other.map_label.weight.data = network.label_emb.weight.data.T
    for target, source in (
        (other.map_layer0, network.time_embed[0]),
        (other.map_layer1, network.time_embed[2]),
        (other.enc["8x8_conv"], network.input_blocks[0][0]),
        (other.out_norm, network.out[0]),
        (other.out_conv, network.out[2]),
    ):
        target.load_state_dict(source.state_dict())
    x, t, labels = _state()
    expected = other(x, t, torch.eye(5)[labels])
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(network(x, t, labels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "n_parameters"),
    [
        # arXiv:2105.05233, Table 4: 296 million at 64 pixels, 554 at 256 with classes
        (
            AdmConfig(
                num_channels=192,
                num_res_blocks=3,
                num_head_channels=64,
                attention_resolutions="32,16,8",
                class_cond=True,
                learn_sigma=True,
                resblock_updown=True,
                use_new_attention_order=True,
            ),
            295_904_454,
        ),
        (
            AdmConfig(
                image_size=256,
                num_channels=256,
                num_head_channels=64,
                attention_resolutions="32,16,8",
                class_cond=True,
                learn_sigma=True,
                resblock_updown=True,
            ),
            553_838_086,
        ),
    ],
)
def test_published_networks_have_their_number_of_parameters(
    config: AdmConfig, n_parameters: int
) -> None:
    with torch.device("meta"):
        network = UNet(config.shape)
    assert sum(p.numel() for p in network.parameters()) == n_parameters


@pytest.mark.parametrize(
    "flags",
    [
        {"resblock_updown": False},
        {"use_scale_shift_norm": False},
        {"num_head_channels": -1, "num_heads": 2, "num_heads_upsample": 4},
    ],
)
def test_other_flags_make_other_networks_that_run(flags: dict[str, Any]) -> None:
    x, t, labels = _state()
    answer = _denoiser(flags=flags)(x, t, labels)
    assert answer.shape == x.shape
    assert torch.isfinite(answer).all()
    usual = _denoiser()
    assert not torch.allclose(answer, usual(x, t, labels))


# --- what is made of the answer ---


def test_the_clean_image_follows_from_the_predicted_noise() -> None:
    denoiser = _denoiser()
    x, t, labels = _state()
    eps = denoiser.network(x, t, labels)[:, :3]
    for i, at in enumerate(t.tolist()):
        alpha, sigma = denoiser.process.alpha(at), denoiser.process.sigma(at)
        expected = (x[i] - sigma * eps[i]) / alpha
        torch.testing.assert_close(denoiser(x, t, labels)[i], expected, rtol=1e-4, atol=1e-4)
    assert denoiser.network_batches_per_call == 1


def test_noise_is_that_of_the_flags() -> None:
    linear, short = _denoiser().process, _denoiser(flags={"diffusion_steps": 250}).process
    assert 1 - linear.alpha(0.0) ** 2 == pytest.approx(1e-4)
    assert 1 - short.alpha(0.0) ** 2 == pytest.approx(4e-4)
    cosine = _denoiser(flags={"noise_schedule": "cosine"}).process
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) for i in (501, 0)]
    assert cosine.alpha(500.0) == pytest.approx(f[0] / f[1])


def test_rescaled_times_are_told_in_thousandths() -> None:
    x, t, labels = _state()
    plain = _denoiser(flags={"diffusion_steps": 250})
    scaled = _denoiser(flags={"diffusion_steps": 250, "rescale_timesteps": True})
    eps = plain.network(x, t, labels)[:, :3]
    at = (t / 4)[:, None, None, None]
    x0 = (x - scaled.process.sigma(at) * eps) / scaled.process.alpha(at)
    torch.testing.assert_close(scaled(x, t / 4, labels), x0, rtol=1e-4, atol=1e-4)


def test_clipped_images_stay_in_range() -> None:
    x, t, labels = _state()
    clipped = _denoiser(clips=True)(x, t, labels)
    torch.testing.assert_close(clipped, _denoiser()(x, t, labels).clamp(-1, 1))


def test_a_classifier_moves_the_image_along_its_gradient() -> None:
    scale = 2.0
    guided = _denoiser(guided=True, scale=scale).double()
    x, t, labels = (value.double() if i == 0 else value for i, value in enumerate(_state(1)))
    plain = _denoiser().double()
    plain.network = guided.network
    alpha, sigma = (float(f(t.double())) for f in (guided.process.alpha, guided.process.sigma))
    score = (guided(x, t, labels) - plain(x, t, labels)) * alpha / (scale * sigma**2)
    step = 1e-5 * torch.randn(
        x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )

    def log_p(at: Tensor) -> float:
        with torch.no_grad():
            return guided.classifier(at, t).log_softmax(-1)[0, labels[0]].item()

    expected = (log_p(x + step) - log_p(x - step)) / 2
    assert (score * step).sum().item() == pytest.approx(expected, rel=1e-3)
    assert guided.network_batches_per_call == 3


def test_guidance_works_in_inference_mode_and_under_a_gradient() -> None:
    guided = _denoiser(guided=True)
    x, t, labels = _state()
    expected = guided(x, t, labels)
    assert not expected.requires_grad
    with torch.inference_mode():
        inside = guided(x * 1.0, t * 1.0, labels * 1)
    torch.testing.assert_close(inside, expected)
    at = x.double().requires_grad_()
    wide = _denoiser(guided=True).double()

    def value(point: Tensor) -> Tensor:
        return (wide(point, t, labels) * x).sum()

    (gradient,) = torch.autograd.grad(value(at), at)
    step = 1e-5 * x.double()
    difference = (value(at + step) - value(at - step)).item() / 2
    assert difference == pytest.approx((gradient * step).sum().item(), rel=1e-3)


# --- files ---


def test_files_load_with_their_flags_in_three_places(tmp_path: Path) -> None:
    original = _denoiser()
    x, t, labels = _state()
    path = _saved(tmp_path / "net.pt", original.network)
    described = tmp_path / "flags.json"
    described.write_text(json.dumps(FLAGS))
    whole = tmp_path / "net.safetensors"
    save_file(original.network.state_dict(), whole, metadata={CONFIG_KEY: json.dumps(FLAGS)})
    for options in (
        {"path": path, "config": FLAGS},
        {"path": path, "config": described},
        {"path": whole},
    ):
        loaded = guided_diffusion.load(**options)
        torch.testing.assert_close(loaded(x, t, labels), original(x, t, labels))
    assert loaded.sample_shape == (3, 8, 8)


def test_a_guided_evaluation_counts_every_pass(tmp_path: Path) -> None:
    original = _denoiser(guided=True)
    spec = evaluator_spec(
        model="guided_diffusion",
        model_options={
            "path": _saved(tmp_path / "net.pt", original.network),
            "config": FLAGS,
            "classifier": _saved(tmp_path / "classifier.pt", original.classifier),
            "classifier_config": GUIDE,
            "clip": True,
        },
        features="tests.support.plugins:pixels",
        reference="tests.models.test_guided_diffusion:real",
    )
    schedule = published.ddim(original.process, nfe=2)
    question = measure(schedule, rung=Rung.SEARCH, n_images=10, noise_seed=0)
    found = Evaluator(spec).evaluate(question)
    assert found.network_calls == 2 * 3 * 10


def real() -> Tensor:
    """The reference of the test above."""
    return torch.rand((8, 3, 8, 8), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": None}, "does not say how its network is built"),
        ({"config": FLAGS | {"num_chanels": 3}}, "did you mean 'num_channels'"),
        ({"config": FLAGS | {"channel_mult": ""}}, "no usual one for image_size=8"),
        ({"config": FLAGS | {"num_channels": 64}}, "differs in shape at time_embed"),
        ({"config": FLAGS | {"class_cond": False}}, r"no place for label_emb\.weight"),
        ({"config": FLAGS | {"noise_schedule": "sine"}}, "noise_schedule"),
        ({"config": FLAGS | {"num_head_channels": 24}}, "64 channels .* heads of 24"),
        ({"labels": "none"}, "needs classes"),
        ({"dtype": "int8"}, "model.dtype"),
        ({"classifier_scale": 2.0}, "no classifier file"),
        ({"classifier": "no.pt"}, "model.classifier: 'no.pt' does not exist"),
    ],
)
def test_wrong_options_are_one_clear_sentence(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = _saved(tmp_path / "net.pt", _denoiser().network)
    with pytest.raises(InvalidConfig, match=message):
        guided_diffusion.load(**({"path": path, "config": FLAGS} | options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 16}, "the network makes images of 8"),
        ({"n_classes": 4}, "the network knows 5"),
        ({"classifier_depth": 2}, r"model.classifier: \S*classifier.pt does not fit .* misses"),
        ({"classifier_pool": "spatial"}, "classifier_pool"),
    ],
)
def test_a_classifier_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    original = _denoiser(guided=True)
    with pytest.raises(InvalidConfig, match=message):
        guided_diffusion.load(
            _saved(tmp_path / "net.pt", original.network),
            FLAGS,
            classifier=_saved(tmp_path / "classifier.pt", original.classifier),
            classifier_config=GUIDE | changes,
        )


def test_wrong_files_are_named_and_never_run(tmp_path: Path) -> None:
    torch.save({"w": RunsCode(tmp_path / "it_ran")}, tmp_path / "net.pt")
    torch.save([1.0], tmp_path / "list.pt")
    (tmp_path / "net.pkl").write_bytes(b"")
    for name, message in (
        ("net.pt", "it was not loaded"),
        ("list.pt", "holds a list that is no state dict"),
        ("net.pkl", 'read by loader = "edm"'),
        ("none.pt", "does not exist"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            guided_diffusion.load(tmp_path / name, FLAGS)
    assert not (tmp_path / "it_ran").exists()


def test_half_precision_is_near_single() -> None:
    x, t, labels = _state()
    single, half = _denoiser(), _denoiser()
    half.network.to(torch.bfloat16)
    answer = half(x, t, labels)
    assert answer.dtype == torch.float32
    difference = (answer - single(x, t, labels)).abs().mean()
    assert difference < 0.05 * single(x, t, labels).abs().mean()
