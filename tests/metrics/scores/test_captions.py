"""Scores of images with their captions, and the aesthetic score, against their formulas."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel

from s3search.errors import InvalidConfig
from s3search.metrics.extractors import clip as extractor
from s3search.metrics.scores import aesthetic, clip, hpsv2, imagereward, pickscore
from s3search.metrics.scores.blip import blip, side_of
from s3search.metrics.scores.open_clip import clip_model
from tests.metrics.extractors.models import save_clip
from tests.metrics.scores.inputs import drawn, images
from tests.metrics.scores.models import MEASURED, regression_state, save_bert_tokens

CAPTIONS = ["digit zero", "a digit", "digit zero"]
HPS: dict[str, Any] = json.loads((MEASURED / "networks.json").read_text())["hpsv2"]
REWARD: dict[str, Any] = json.loads((MEASURED / "imagereward.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def hps_file(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A small checkpoint as HPS v2.1's, for the tokenizer of the folder."""
    n_tokens = len(json.loads((folder / "vocab.json").read_text()))
    shapes = HPS["shapes"] | {"token_embedding.weight": (n_tokens, 128)}
    state = {name: tensor.half() for name, tensor in drawn(shapes).items()}
    path = tmp_path_factory.mktemp("hps") / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 1, "name": "tuned", "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def reward_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = REWARD["shapes"] | {
        "blip.text_encoder.embeddings.position_embeddings.weight": (40, 128)
    }
    state = {name: tensor.float() for name, tensor in drawn(shapes).items()}
    path = tmp_path_factory.mktemp("reward") / "ImageReward.pt"
    torch.save(state, path)
    save_bert_tokens(path.parent / "bert", 18)
    return path


def _load(kind: str, folder: Path, hps_file: Path, reward_file: Path) -> Any:
    if kind == "clip":
        return clip.load(str(folder))
    if kind == "pickscore":
        return pickscore.load(str(folder), tokens=str(folder))
    if kind == "hpsv2.1":
        return hpsv2.load(str(hps_file), tokens=str(folder))
    if kind == "imagereward":
        return imagereward.load(reward_file, tokens=str(reward_file.parent / "bert"))
    torch.save(regression_state(8), hps_file.parent / "head.pth")
    return aesthetic.load(str(folder), weights=hps_file.parent / "head.pth")


KINDS = ("clip", "pickscore", "hpsv2.1", "imagereward", "aesthetic")
NEEDING = KINDS[:-1]


def _embeddings(folder: Path, x: Tensor, captions: list[str]) -> tuple[Tensor, Tensor, Any]:
    """Features of images and captions by transformers alone, each over its length."""
    model: Any = CLIPModel.from_pretrained(folder).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (extractor.MEAN, extractor.STD))
    pixels = (((x + 1) * 127.5).round() / 255 - mean) / std
    tokens = extractor.load_with_texts(str(folder), device=torch.device("cpu"))[1]._tokens
    given = tokens(captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        both = model(pixel_values=pixels, **given)
    return both.image_embeds, both.text_embeds, model


def _pictures(n: int = 3, side: int = 28) -> Tensor:
    """Images that are whole levels, so that rounding leaves them."""
    levels = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(1))
    return levels / 127.5 - 1


def test_clip_is_the_weighted_positive_cosine(folder: Path) -> None:
    x = _pictures()
    image, text, _ = _embeddings(folder, x, CAPTIONS)
    cosines = (image * text).sum(dim=1)
    expected = 2.5 * cosines.clamp(min=0)
    torch.testing.assert_close(clip.load(str(folder))(x, captions=CAPTIONS), expected)
    hundred = clip.load(str(folder), scale=-100.0)(x, captions=CAPTIONS)
    torch.testing.assert_close(hundred, -100 * cosines.clamp(min=0), rtol=1e-4, atol=1e-5)


def test_pickscore_is_the_scaled_cosine(folder: Path) -> None:
    x = _pictures()
    image, text, model = _embeddings(folder, x, CAPTIONS)
    expected = (model.logit_scale.exp() * text @ image.T).diagonal()
    found = pickscore.load(str(folder), tokens=str(folder))(x, captions=CAPTIONS)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_hps_features_are_those_of_open_clip() -> None:
    state = drawn(HPS["shapes"])
    model = clip_model(state, 19, field="metric.path", source="here")
    model.double().load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    tokens = torch.tensor(HPS["tokens"])
    with torch.no_grad():
        both = model(pixel_values=images(n=2, side=28, seed=2), input_ids=tokens)
    found = (both.image_embeds * both.text_embeds).sum(dim=1)
    expected = torch.tensor(HPS["cosines"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_hps_is_a_hundred_cosines_from_either_form_of_its_weights(
    folder: Path, hps_file: Path, tmp_path: Path
) -> None:
    score = hpsv2.load(str(hps_file), tokens=str(folder))
    score.images.model.save_pretrained(tmp_path)
    x = _pictures()
    image, text, _ = _embeddings(folder=_with_tokens(tmp_path, folder), x=x, captions=CAPTIONS)
    expected = 100 * (image * text).sum(dim=1)
    found = score(x, captions=CAPTIONS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    again = hpsv2.load(str(tmp_path), tokens=str(folder))
    assert again.name == score.name
    torch.testing.assert_close(again(x, captions=CAPTIONS), found)


def _with_tokens(to: Path, folder: Path) -> Path:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (to / name).write_bytes((folder / name).read_bytes())
    return to


def test_images_that_are_not_square_are_padded_with_black() -> None:
    seen = torch.full((1, 3, 20, 40), 200.0)
    found = hpsv2.letterboxed(seen, 28)
    assert found.shape == (1, 3, 28, 28)
    torch.testing.assert_close(found[..., 7:21, :], torch.full((1, 3, 14, 28), 200.0))
    assert found[..., :7, :].abs().max() == 0
    assert found[..., 21:, :].abs().max() == 0


def test_imagereward_is_that_of_its_authors() -> None:
    state = drawn(REWARD["shapes"])
    inside = {name.removeprefix("blip."): tensor for name, tensor in state.items()}
    network = blip(inside, field="metric.path", source="here").double()
    heads = {k.removeprefix("mlp."): v for k, v in state.items() if k.startswith("mlp.")}
    head = aesthetic.regression(128, heads, source="here").double()
    tokens = torch.tensor(REWARD["tokens"])
    assert side_of(inside) == 32
    pixels = images(n=2, side=32, seed=3)
    with torch.no_grad():
        rewards = head(network(pixels, tokens, (tokens > 0).long())).squeeze(1)
    expected = torch.tensor(REWARD["scores"], dtype=torch.float64)
    found = (rewards - imagereward._MEAN) / imagereward._STD
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_aesthetic_is_linear_in_normalised_features(folder: Path, tmp_path: Path) -> None:
    state = regression_state(8)
    torch.save(state, tmp_path / "head.pth")
    x = _pictures()
    image, _, _ = _embeddings(folder, x, CAPTIONS)
    for place in (0, 2, 4, 6, 7):
        image = image @ state[f"layers.{place}.weight"].T + state[f"layers.{place}.bias"]
    found = aesthetic.load(str(folder), weights=tmp_path / "head.pth")(x)
    torch.testing.assert_close(found, image[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_is_scored_alone_and_has_a_gradient(
    kind: str, folder: Path, hps_file: Path, reward_file: Path
) -> None:
    score = _load(kind, folder, hps_file, reward_file)
    assert score.direction == "maximize"
    assert score.needs == (() if kind == "aesthetic" else ("captions",))
    assert score.name.startswith(f"{kind}-")
    assert not any(p.requires_grad for p in score.parameters())
    x = images(side=8, channels=1).float()
    with torch.inference_mode():
        first = score(x, captions=CAPTIONS)  # what it keeps must not hinder gradients
    x.requires_grad_()
    whole = score(x, captions=CAPTIONS, labels=torch.zeros(3), target=x)
    torch.testing.assert_close(whole.detach(), first.clone())
    alone = [score(a[None], captions=[b]) for a, b in zip(x, CAPTIONS, strict=True)]
    torch.testing.assert_close(whole, torch.cat(alone), rtol=1e-4, atol=1e-4)
    best = int(whole.argmax())  # `clip` has no gradient below zero
    assert kind != "clip" or whole[best] > 0
    whole[best].backward()
    assert x.grad is not None
    assert x.grad[best].abs().max() > 0
    assert x.grad.flatten(1).abs().amax(dim=1).count_nonzero() == 1


@pytest.mark.parametrize("kind", NEEDING)
def test_captions_that_are_missing_or_do_not_fit_are_named(
    kind: str, folder: Path, hps_file: Path, reward_file: Path
) -> None:
    score = _load(kind, folder, hps_file, reward_file)
    x = images().float()
    with pytest.raises(InvalidConfig, match=rf"'{kind}-\w+' compares images with their captions"):
        score(x, labels=torch.zeros(3))
    with pytest.raises(InvalidConfig, match="found 2 captions for 3 images"):
        score(x, captions=CAPTIONS[:2])
    with pytest.raises(InvalidConfig, match="needs a list of captions, found str"):
        score(x, captions="a digit")
    with pytest.raises(InvalidConfig, match="with 1 or 3 channels, found"):
        score(x[:, :2], captions=CAPTIONS)


def test_a_caption_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score = clip.load(str(folder))
    asked: list[str] = []
    texts = score._captions._texts

    def counted(new: list[str]) -> Tensor:
        asked.extend(new)
        return texts(new)

    monkeypatch.setattr(score._captions, "_texts", counted)
    for _ in range(2):
        score(images().float(), captions=CAPTIONS)
    assert asked == ["digit zero", "a digit"]


def test_weights_that_are_not_here_are_not_fetched(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InvalidConfig, match=r"metric.path: no CLIPModel is found at .*s3search"):
        pickscore.load("s3search/has-no-such-model")
    with pytest.raises(InvalidConfig, match=r"metric.path: there is no file .*none.pt; give HPS_"):
        hpsv2.load(str(tmp_path / "none.pt"))
    with pytest.raises(InvalidConfig, match=r"sac\+logos.*; put https://github.com/christoph"):
        aesthetic.load(str(folder))
    import huggingface_hub  # noqa: PLC0415

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InvalidConfig, match=r"ImageReward.pt of THUDM/ImageReward is not in the"):
        imagereward.load()
    with pytest.raises(InvalidConfig, match=r"HPS_v2.1_compressed.pt of xswu/HPSv2 is not in the"):
        hpsv2.load()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InvalidConfig, match="needs huggingface_hub"):
        imagereward.load()


class _Payload:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_other_files_are_refused_and_not_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.pt"
    torch.save({"state_dict": {"logit_scale": _Payload()}}, bad)
    with pytest.raises(InvalidConfig, match="is no file of weights alone"):
        hpsv2.load(str(bad), tokens=str(folder))
    with pytest.raises(InvalidConfig, match=r"metric.path: .* was not loaded"):
        imagereward.load(bad, tokens=str(folder))
    assert capsys.readouterr().out == ""
    torch.save({"weight": torch.zeros(2)}, bad)
    with pytest.raises(
        InvalidConfig, match=r"is no file of ImageReward: visual_encoder.cls_token"
    ):
        imagereward.load(bad, tokens=str(folder))
    with pytest.raises(InvalidConfig, match=r"does not fill the network: 0.weight .* \(1024, 8\)"):
        aesthetic.load(str(folder), weights=bad)
