"""DINOv2 and CLIP through transformers: their own features, gradients, and what may be wrong."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel, Dinov2Model

from s3search.errors import InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.metrics.extractors import clip, dinov2
from s3search.metrics.extractors.rgb import RgbFeatures
from s3search.processes import edm
from s3search.schedules import published
from s3search.search.questions import Polish, Rung, measure
from s3search.search.trial import Trial, seeded
from tests.metrics.extractors.models import save_clip, save_dinov2
from tests.support.specs import evaluator_spec


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def _bytes(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 3, side, side), generator=generator)


def _image(levels: Tensor) -> Tensor:
    return levels / 127.5 - 1


def test_dinov2_gives_the_class_token_of_the_normalised_image(dino: Path) -> None:
    features = dinov2.load(str(dino), side=28)
    model: Any = Dinov2Model.from_pretrained(dino)
    levels = _bytes(28)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (levels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        expected = model.eval()(pixel_values=pixels).last_hidden_state[:, 0]
        torch.testing.assert_close(features(_image(levels)), expected)


def test_clip_gives_the_features_of_images_and_texts(clip_folder: Path) -> None:
    features, texts = clip.load_with_texts(str(clip_folder), device=torch.device("cpu"))
    model: Any = CLIPModel.from_pretrained(clip_folder).eval()
    levels = _bytes(28)
    mean, std = torch.tensor(clip.MEAN), torch.tensor(clip.STD)
    pixels = (levels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    ids = texts._tokens(["digit zero"], return_tensors="pt")
    with torch.inference_mode():
        both = model(pixel_values=pixels, input_ids=ids["input_ids"])
        found = features(_image(levels))
    cosine = torch.nn.functional.cosine_similarity
    by_ours = cosine(found, texts(["digit zero"]), dim=1)
    by_theirs = cosine(both.image_embeds, both.text_embeds, dim=1)
    torch.testing.assert_close(by_ours, by_theirs)
    assert texts(["a of zero " * 20]).shape == (1, 8)  # cut at the network's length


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_features_have_gradients_and_a_name_by_weights(
    kind: str, dino: Path, clip_folder: Path, tmp_path: Path
) -> None:
    def load(path: Path) -> RgbFeatures:
        return dinov2.load(str(path)) if kind == "dinov2" else clip.load(str(path))

    features = load(dino if kind == "dinov2" else clip_folder)
    images = _image(_bytes(20)).requires_grad_()
    features(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert features.name.startswith("dinov2-224-" if kind == "dinov2" else "clip-")
    if kind == "dinov2":
        assert load(save_dinov2(tmp_path, seed=1)).name != features.name


def test_weights_that_are_not_here_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"no Dinov2Model is found at .*download = true"):
        dinov2.load("facebook/s3search-has-no-such-model")
    with pytest.raises(InvalidConfig, match=r"metric.path: no CLIPModel is found"):
        clip.load(str(tmp_path))


def test_weights_of_another_network_do_not_become_random_ones(clip_folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="does not fill a Dinov2Model"):
        dinov2.load(str(clip_folder))


def test_a_side_that_does_not_fit_the_patches_is_refused(dino: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"metric.side: 30 is no multiple .* 14 pixels"):
        dinov2.load(str(dino), side=30)


def test_a_missing_tokenizer_is_named(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    with pytest.raises(
        InvalidConfig, match=r"--clip: the tokenizer at .* put the tokenizer's files"
    ):
        clip.load_with_texts(str(tmp_path), device=torch.device("cpu"))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InvalidConfig, match=r"pip install transformers"):
        dinov2.load()


def test_schedules_are_measured_and_polished_with_them(dino: Path) -> None:
    spec = evaluator_spec(
        model="digits",
        features="dinov2",
        features_options={"path": str(dino), "side": 28},
        reference="digits",
        batch_size=100,
    )
    evaluator = Evaluator(spec)
    schedule = published.unipc(edm(), nfe=3)
    question = measure(schedule, rung=Rung.SEARCH, n_images=100, noise_seed=0)
    found = evaluator.evaluate(question)
    assert found.extractor == dinov2.load(str(dino), side=28).name
    assert found.value is not None
    assert found.value > 0
    trial = Trial.of(schedule, seeded("given"))
    wanted = Polish(trial=trial, iterations=2, n_images=16, seed=0, noise_seed=9)
    polished = evaluator.polish(wanted).made
    assert len(polished.losses) > 0
    assert all(math.isfinite(loss) for loss in polished.losses)
