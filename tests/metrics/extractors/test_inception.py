"""Inception: the published network where it is installed, a small one in its place where not."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig
from s3search.metrics.extractors import inception

MODULE = "torch_fidelity.feature_extractor_inceptionv3"
URL = "https://example.org/weights-inception-test.pth"


class _SmallInception(nn.Module):
    """The stages of torch-fidelity's network by name, each one small."""

    downloads = 0

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: Any = None
    ) -> None:
        super().__init__()
        assert (name, features_list) == ("inception-v3", ["2048"])
        for k, stage in enumerate(inception._STAGES[:-1]):
            made = nn.Conv2d(4 if k else 3, 4, 1) if k % 5 == 0 else nn.Softplus()
            self.add_module(stage, made)
        self.AvgPool = nn.AdaptiveAvgPool2d(1)
        if feature_extractor_weights_path is None:
            type(self).downloads += 1
        else:
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))


def _resized(images: Tensor, *, size: tuple[int, int], align_corners: bool) -> Tensor:
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=align_corners)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """torch-fidelity is the small network; the weights of one."""
    module = ModuleType(MODULE)
    vars(module).update(
        FeatureExtractorInceptionV3=_SmallInception,
        URL_INCEPTION_V3=URL,
        interpolate_bilinear_2d_like_tensorflow1x=_resized,
    )
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(_SmallInception, "downloads", 0)
    path = tmp_path / "weights.pth"
    torch.save(_SmallInception("inception-v3", ["2048"]).state_dict(), path)
    monkeypatch.setattr(_SmallInception, "downloads", 0)
    return path


def _images(n: int = 3, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((n, channels, 8, 8), generator=generator) * 2 - 1


def test_features_are_named_after_their_weights_and_have_gradients(small: Path) -> None:
    features = inception.load(small)
    assert features.name.startswith("inception-v3-")
    assert inception.load(small).name == features.name
    images = _images(channels=1).requires_grad_()
    found = features(images)
    assert found.shape == (3, 4)
    found.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert not any(p.requires_grad for p in features.parameters())


def test_weights_are_taken_from_the_cache_and_fetched_only_on_demand(small: Path) -> None:
    cached = inception.cached_weights(URL)
    with pytest.raises(InvalidConfig, match=f"no weights at {cached}; put {URL} there.*download"):
        inception.load()
    assert _SmallInception.downloads == 0
    inception.load(download=True)
    assert _SmallInception.downloads == 1
    cached.parent.mkdir(parents=True)
    small.rename(cached)
    inception.load(download=True)
    assert _SmallInception.downloads == 1


def test_a_wrong_file_of_weights_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"finds no weights at .*none\.pth"):
        inception.load(tmp_path / "none.pth")
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    with pytest.raises(InvalidConfig, match="is not a file of weights"):
        inception.load(text)
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, other)
    with pytest.raises(InvalidConfig, match="other weights than torch-fidelity's"):
        inception.load(other)


class _Payload:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_a_pickle_with_code_is_not_run(small: Path, tmp_path: Path, capsys: Any) -> None:
    torch.save({"weight": _Payload()}, tmp_path / "bad.pth")
    with pytest.raises(InvalidConfig, match="is not a file of weights"):
        inception.load(tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(InvalidConfig, match=r"pip install torch-fidelity"):
        inception.load()


def test_the_published_network_gives_its_own_features(tmp_path: Path) -> None:
    fidelity: Any = pytest.importorskip(MODULE, reason="torch-fidelity is not installed")
    real = fidelity.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(real, "load_state_dict", lambda *_: None)
        theirs = real("inception-v3", ["2048"])  # random weights
    torch.save(theirs.state_dict(), tmp_path / "random.pth")
    ours = inception.load(tmp_path / "random.pth")
    images = _images()
    (expected,) = theirs((127.5 * images + 128).clamp(0, 255).to(torch.uint8))
    assert torch.equal(ours(images), expected)
    images.requires_grad_()
    ours(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
