"""LPIPS and DISTS against the authors' codes, on the same random convolutions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.metrics.scores import dists, lpips
from s3search.metrics.scores.backbones import LEAST_SIDE
from s3search.metrics.scores.target import TargetScore
from tests.metrics.scores.inputs import images
from tests.metrics.scores.models import MEASURED, save_backbone

GOLDEN: dict[str, Any] = json.loads((MEASURED / "networks.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    for network in ("alex", "vgg"):
        save_backbone(folder, network)
    return folder


def _load(kind: str, folder: Path, **keys: Any) -> TargetScore:
    if kind == "dists":
        return dists.load(weights=folder / "vgg.pth", **keys)
    network = kind.partition("_")[2]
    return lpips.load(network, weights=folder / f"{network}.pth", **keys)


@pytest.mark.parametrize("kind", ["lpips_alex", "lpips_vgg"])
def test_lpips_is_that_of_its_authors(kind: str, folder: Path) -> None:
    score = _load(kind, folder).double()
    found = score(images(seed=0), target=images(seed=1))
    expected = torch.tensor(GOLDEN[kind], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_dists_is_that_of_its_authors(folder: Path) -> None:
    score = _load("dists", folder).double()
    x, y = images(seed=0), images(seed=1)
    expected = torch.tensor(GOLDEN["dists_authors"], dtype=torch.float64)
    torch.testing.assert_close(score(x, target=y), expected, rtol=1e-6, atol=0)
    by_piq = torch.tensor(GOLDEN["dists_piq"], dtype=torch.float64)
    torch.testing.assert_close(score(x, target=y), by_piq, rtol=0, atol=2e-7)
    small = torch.tensor(GOLDEN["dists_authors_side_9"], dtype=torch.float64)
    found = score(x[..., :9, :9], target=y[..., :9, :9])
    torch.testing.assert_close(found, small, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["lpips_alex", "lpips_vgg", "dists"])
def test_each_image_is_scored_alone_and_has_a_gradient(kind: str, folder: Path) -> None:
    score = _load(kind, folder)
    assert score.direction == "minimize"
    assert score.needs == ("target",)
    assert not any(p.requires_grad for p in score.parameters())
    assert score.name.startswith(kind.replace("_", "-"))
    x, y = (images(n=2, seed=seed, side=32, channels=1).float() for seed in (0, 1))
    x.requires_grad_()
    whole = score(x, target=y, labels=torch.zeros(2))
    alone = torch.cat([score(a[None], target=b[None]) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-6)
    whole[0].backward()
    assert x.grad is not None
    assert x.grad[0].abs().max() > 0
    assert torch.equal(x.grad[1], torch.zeros_like(x.grad[1]))
    assert torch.equal(score(y, target=y), torch.zeros(2))


@pytest.mark.parametrize("kind", ["lpips_alex", "lpips_vgg", "dists"])
def test_equal_and_flat_images_have_finite_gradients(kind: str, folder: Path) -> None:
    score = _load(kind, folder)
    x = torch.zeros(2, 3, 32, 32).requires_grad_()
    score(x, target=torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


class _Dead(nn.Module):
    """A stage where nothing is above zero at half of the places."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x[:, :2] * torch.tensor([1.0, 0.0])).relu()]


def test_a_place_without_activations_has_no_gradient_and_the_authors_value() -> None:
    stages: Any = _Dead()
    network = lpips.Lpips(stages, [torch.ones(1, 2, 1, 1)], None, 1)
    x = torch.tensor([[0.5, 0.7], [0.1, 0.2]]).expand(1, 3, 2, 2).clone().requires_grad_()
    found = network(x, torch.zeros(1, 3, 2, 2) - 0.9)
    assert found.item() == pytest.approx(0.5, abs=1e-6)  # of four places two live
    found.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_images_that_are_too_small_are_refused_or_enlarged(network: str, folder: Path) -> None:
    least = LEAST_SIDE[network]
    score = _load(f"lpips_{network}", folder)
    x = images(side=least - 1).float()
    with pytest.raises(InvalidConfig, match=rf"{least} pixels a side .* set metric.side = 64"):
        score(x, target=x)
    with pytest.raises(InvalidConfig, match=rf"metric.side: .* {least} pixels .* found 8"):
        _load(f"lpips_{network}", folder, side=8)
    x = images(side=least).float()
    assert score(x, target=-x).isfinite().all()
    enlarged = _load(f"lpips_{network}", folder, side=64)
    assert enlarged.name.startswith(f"lpips-{network}-64-")
    x = images(side=8, channels=1).float().requires_grad_()
    enlarged(x, target=-x.detach()).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_channels_that_are_no_colours_are_refused(folder: Path) -> None:
    x = images(channels=4)
    with pytest.raises(InvalidConfig, match="1 or 3 channels, found 4"):
        _load("dists", folder)(x, target=x)


def test_weights_that_are_missing_or_of_another_network_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InvalidConfig, match=r"no weights at .*vgg16-397923af.pth; put https://"):
        dists.load()
    with pytest.raises(InvalidConfig, match=r"metric.weights: there are no weights at .*none"):
        lpips.load(weights=tmp_path / "none.pth")
    with pytest.raises(InvalidConfig, match=r"does not fill the network: features.0.weight"):
        lpips.load("alex", weights=folder / "vgg.pth")
    with pytest.raises(InvalidConfig, match=r"'vgq' is no network .* did you mean 'vgg'"):
        lpips.load("vgq")
    torch.save({"alpha": torch.zeros(2)}, tmp_path / "heads.pt")
    with pytest.raises(InvalidConfig, match=r"alpha and beta of 1475 numbers each, found"):
        _load("dists", folder, heads=tmp_path / "heads.pt")
    with pytest.raises(InvalidConfig, match=r"other heads than those of 'alex': lin0"):
        _load("lpips_alex", folder, heads=tmp_path / "heads.pt")


def test_the_cached_file_is_used(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cache = tmp_path / "checkpoints"
    cache.mkdir()
    (cache / "alexnet-owt-7be5be79.pth").write_bytes((folder / "alex.pth").read_bytes())
    assert lpips.load().name == _load("lpips_alex", folder).name


def test_heads_that_no_package_brings_are_asked_for(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidConfig, match=r"pip install torchmetrics, or give the file's path"):
        _load("dists", folder)
