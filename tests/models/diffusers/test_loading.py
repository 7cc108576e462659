"""What `[model] loader = "diffusers"` takes, and what it says of what it cannot load."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

from safetensors.torch import load_file, save_file

from s3search.errors import EvaluationFailed, InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.plugins import MODELS, call_plugin
from s3search.models.diffusers import load
from s3search.schedules import published
from s3search.search.questions import Rung, measure
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support import pipelines

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning"
)

PROMPTS = ["a", "b c", "d e f", "g"]


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.ddpm(tmp_path_factory.mktemp("ddpm") / "cifar10")


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.stable_diffusion(tmp_path_factory.mktemp("sd") / "sd15")


def _sd(folder: Path, cache: Path, **options: Any) -> Any:
    return load(str(folder), **{"prompts": PROMPTS, "held_out": 0, "cache": str(cache), **options})


def _images(denoiser: Any, n: int = 5) -> Tensor:
    plan = compile_plan(published.dpmpp_2m(denoiser.process, nfe=4))
    noise = torch.randn((n, *denoiser.sample_shape), generator=torch.Generator().manual_seed(1))
    condition = denoiser.condition(n, torch.Generator().manual_seed(2))
    with torch.no_grad():
        return sample(denoiser, plan, noise, **condition)


# ---- what is wrong is named


def _misspelt(folder: Path) -> str:
    return str(folder.with_name("cifar01"))


def _of_nothing(folder: Path) -> str:
    return str(folder / "unett" / "deeper")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (_misspelt, "there is no folder .*did you mean '.*cifar10'"),
        (_of_nothing, "there is no folder .*did you mean '.*unet'"),
        (lambda folder: str(folder / "unet"), "no model_index.json, found .*config.json"),
        (lambda folder: str(folder / "model_index.json"), "there is no folder"),
        (lambda _: "./nowhere", "there is no folder './nowhere'"),
    ],
)
def test_a_wrong_path_is_named(ddpm: Path, path: Callable[[Path], str], problem: str) -> None:
    with pytest.raises(InvalidConfig, match=problem):
        load(path(ddpm))


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_single_file_is_refused_with_what_makes_a_folder_of_it(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"v1-5-pruned.{suffix}"
    path.write_bytes(b"weights")
    with pytest.raises(InvalidConfig, match=r"is one file.*from_single_file.*save_pretrained"):
        load(str(path))


def test_a_path_below_the_working_directory_is_no_hub_id(
    ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ddpm.parent.parent)
    assert load(f"{ddpm.parent.name}/cifar10").sample_shape == (3, 8, 8)
    with pytest.raises(InvalidConfig, match=r"there is no folder .*did you mean '.*cifar10'"):
        load(f"{ddpm.parent.name}/cifar")


def test_a_hub_id_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidConfig, match=r"'nobody/nothing' cannot be loaded .*reachable hub"):
        load("nobody/nothing")


def test_an_unknown_pipeline_lists_the_known_ones(ddpm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ddpm, tmp_path / "other")
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "KarrasVePipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidConfig, match=r"is a KarrasVePipeline.*known: DDIMPipeline"):
        load(str(folder))


@pytest.mark.parametrize("change", ["shape", "bytes"])
def test_weights_of_another_shape_or_broken_ones_are_named(
    ddpm: Path, tmp_path: Path, change: str
) -> None:
    folder = shutil.copytree(ddpm, tmp_path / "broken")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if change == "bytes":
        path.write_bytes(path.read_bytes()[:100])
    else:
        weights = load_file(path)
        save_file({**weights, "conv_in.weight": torch.zeros(8, 4, 3, 3)}, path)
    with pytest.raises(InvalidConfig, match="broken' cannot be loaded"):
        load(str(folder))


def test_a_network_that_sees_more_than_the_latent_is_refused(tmp_path: Path) -> None:
    folder = pipelines.stable_diffusion(tmp_path / "inpaint", in_channels=9)
    with pytest.raises(InvalidConfig, match="latents of 9 channels and the VAE decodes 4"):
        _sd(folder, tmp_path)


def test_a_missing_extra_is_named(ddpm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InvalidConfig, match=r"pip install diffusers transformers"):
        load(str(ddpm))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": "float61"}, "dtype: 'float61' is not a choice; did you mean 'float16'"),
        ({"compile": "fast"}, "compile: 'fast' is not a choice"),
        ({"guidance_scale": 2.0}, "DDPMPipeline has no condition to guide towards"),
        ({"prompts": ["a"]}, "prompts: DDPMPipeline takes none"),
        ({"classes": [1]}, "classes: DDPMPipeline takes none"),
        ({"height": 64}, "height: DDPMPipeline takes none"),
        ({"guidence_scale": 2.0}, "did you mean 'guidance_scale'"),
    ],
)
def test_keys_that_do_not_fit_are_named(ddpm: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidConfig, match=problem):
        call_plugin("model.loader", "diffusers", {"path": str(ddpm), **options}, MODELS)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"prompts": None}, "prompts: StableDiffusionPipeline makes images of prompts"),
        ({"classes": [1]}, "classes: StableDiffusionPipeline takes none"),
        ({"height": 17}, "height: .* multiples of 2 pixels, found 17"),
        ({"width": 0}, "width: .* multiples of 2 pixels, found 0"),
        ({"guidance_scale": 0.5}, "guidance_scale: needs a number of at least 1"),
        ({"held_out": 0.5, "prompts": ["a"]}, "held_out: of 1 prompts"),
    ],
)
def test_keys_of_text_to_image_that_do_not_fit_are_named(
    sd: Path, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidConfig, match=problem):
        _sd(sd, tmp_path, **options)


def test_classes_that_the_model_does_not_have_are_named(tmp_path: Path) -> None:
    folder = pipelines.dit(tmp_path / "dit")
    with pytest.raises(InvalidConfig, match=r"classes 0 to 999, found \[1000\]"):
        load(str(folder), classes=[3, 1000])


def test_a_distilled_network_and_guidance_for_schnell_are_refused(tmp_path: Path) -> None:
    lcm = pipelines.stable_diffusion(tmp_path / "lcm", time_cond_proj_dim=4)
    with pytest.raises(InvalidConfig, match="distilled for few steps"):
        _sd(lcm, tmp_path)
    schnell = pipelines.flux(tmp_path / "schnell", guided=False)
    with pytest.raises(InvalidConfig, match="takes no guidance"):
        _sd(schnell, tmp_path, guidance_scale=3.5, height=16, width=16)


# ---- options


def test_the_usual_guidance_is_the_pipelines_own(sd: Path, tmp_path: Path) -> None:
    assert _sd(sd, tmp_path).guidance.scale == 7.5
    assert _sd(sd, tmp_path).network_batches_per_call == 2
    assert _sd(sd, tmp_path, guidance_scale=1).network_batches_per_call == 1


def test_the_size_of_the_images_can_be_chosen(sd: Path, tmp_path: Path) -> None:
    denoiser = _sd(sd, tmp_path, height=24, width=32)
    assert denoiser.sample_shape == (4, 12, 16)
    assert denoiser.decode(_images(denoiser, 2)).shape == (2, 3, 24, 32)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_changes_little_and_states_stay_wide(
    sd: Path, tmp_path: Path, dtype: str
) -> None:
    wide, half = _sd(sd, tmp_path), _sd(sd, tmp_path, dtype=dtype)
    assert {p.dtype for p in half.network.parameters()} == {getattr(torch, dtype)}
    assert next(half.vae.parameters()).dtype == (
        torch.float32 if dtype == "float16" else torch.bfloat16
    )  # the VAE's config says that it overflows
    found, expected = _images(half), _images(wide)
    assert found.dtype == torch.float32
    assert pipelines.is_close(found, expected, 0.1)
    assert not torch.equal(found, expected)
    images, same = half.decode(expected), wide.decode(expected)
    assert images.dtype == torch.float32
    assert pipelines.is_close(images, same, 0.1)


def test_every_part_of_a_transformer_is_in_the_dtype_asked_for(tmp_path: Path) -> None:
    folder = pipelines.stable_diffusion_3(tmp_path / "pipe")
    denoiser = load(
        str(folder), prompts=PROMPTS, held_out=0, dtype="bfloat16", cache=str(tmp_path)
    )
    assert {p.dtype for p in denoiser.network.parameters()} == {torch.bfloat16}
    assert bool(torch.isfinite(_images(denoiser, 2)).all())


def test_channels_last_changes_the_layout_and_not_the_images(sd: Path, tmp_path: Path) -> None:
    denoiser = _sd(sd, tmp_path, channels_last=True)
    weight = denoiser.network.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert pipelines.is_close(_images(denoiser), _images(_sd(sd, tmp_path)), 1e-4)


@pytest.mark.parametrize("compiled", [True, "max-autotune"])
def test_a_compiled_network_makes_the_same_images(ddpm: Path, compiled: bool | str) -> None:
    """Its compilation, two minutes for these few weights, is left out: called as it is."""
    denoiser = load(str(ddpm), compile=compiled)
    assert denoiser.network._compiled_call_impl is not None
    plain = load(str(ddpm))
    assert set(denoiser.state_dict()) == set(plain.state_dict())
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(_images(denoiser), _images(plain))


def test_an_interval_of_guidance_is_counted_and_changes_the_images(
    sd: Path, tmp_path: Path
) -> None:
    model = {"path": str(sd), "prompts": PROMPTS, "held_out": 0, "cache": str(tmp_path)}
    images = {"images": "tests.support.pipelines:references", "size": 16}
    found = {}
    for name, interval in {"all": [0, 999], "part": [200, 700], "none": [0, 0.5]}.items():
        limited = {**model, "guidance_interval": interval}
        evaluator = Evaluator(pipelines.study(tmp_path, limited, reference=images).evaluator_spec)
        schedule = published.ddim(evaluator.denoiser.process, nfe=4, spacing="uniform")
        question = measure(schedule, rung=Rung.USER, n_images=4, noise_seed=0)
        batches = evaluator.evaluate(question).network_batches
        inside = sum(interval[0] <= t <= interval[1] for t in schedule.times[:-1])
        assert batches == 4 + inside
        found[name] = (batches, _images(evaluator.denoiser))
    assert [batches for batches, _ in found.values()] == [8, 6, 4]
    fixed, free = _sd(sd, tmp_path), _sd(sd, tmp_path, guidance_scale=1)
    assert torch.equal(found["all"][1], _images(fixed))
    assert torch.equal(found["none"][1], _images(free))
    assert not torch.equal(found["part"][1], found["all"][1])


def test_a_batch_that_does_not_fit_makes_the_same_images_in_parts(
    sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = _sd(sd, tmp_path)
    expected = _images(denoiser, 6)
    forward = type(denoiser.network).forward
    room = 4

    def crowded(network: Any, x: Tensor, *rest: Any, **options: Any) -> Any:
        if len(x) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(network, x, *rest, **options)

    monkeypatch.setattr(type(denoiser.network), "forward", crowded)
    assert pipelines.is_close(_images(denoiser, 6), expected, 1e-5)
    room = 1  # and guidance doubles
    with pytest.raises(EvaluationFailed, match="out of memory: the network"):
        _images(denoiser, 6)


def test_the_fingerprint_covers_what_decides_the_images(sd: Path, tmp_path: Path) -> None:
    def digest(**options: Any) -> list[int]:
        found: list[int] = _sd(sd, tmp_path, **options).digest.tolist()
        return found

    assert digest() == digest()
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    assert digest(prompts=str(file)) == digest()
    file.write_text("\n".join([*PROMPTS, "h"]))
    assert digest(prompts=str(file)) != digest()  # the path is the same, the prompts are not
    assert digest(guidance_scale=3.0) != digest()


def test_held_out_prompts_are_others(sd: Path, tmp_path: Path) -> None:
    denoiser = _sd(sd, tmp_path, prompts=[f"a {c} {d}" for c in "abcdefgh" for d in "abc"],
                   held_out=0.4)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    searched = denoiser.condition(30, generator)["prompts"].tolist()
    others = denoiser.condition(30, generator, held_out=True)["prompts"].tolist()
    assert len({*searched, *others}) == 24
    assert not {*searched} & {*others}
