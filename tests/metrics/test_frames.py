"""Extractors and scores of pictures on videos."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.evaluation.spec import MetricSpec
from s3search.evaluation.views import Extractor, Scorer, load_view
from s3search.metrics.frames import FrameMean
from s3search.metrics.scores import pixels, ssim
from s3search.models.digits import features
from s3search.search.direction import Direction

CPU = torch.device("cpu")
VIDEO = (1, 3, 8, 8)


def _videos(n: int = 4) -> Tensor:
    return torch.rand((n, *VIDEO), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_features_of_a_video_are_the_mean_of_its_frames() -> None:
    videos, extractor = _videos(), features()
    found = FrameMean(extractor)(videos)
    frames = [extractor(videos[:, :, k]) for k in range(3)]
    torch.testing.assert_close(found, sum(frames) / 3)
    one = videos.clone().requires_grad_()
    FrameMean(extractor)(one).sum().backward()
    assert one.grad is not None
    assert (one.grad.abs().flatten(3).sum(-1) > 0).all()


def test_what_is_given_for_a_video_is_given_for_each_of_its_frames() -> None:
    told: dict[str, Any] = {}

    def score(images: Tensor, captions: list[str], target: Tensor, labels: Tensor) -> Tensor:
        told.update(captions=captions, target=target, labels=labels, images=images)
        return labels.double() + images.flatten(1).mean(1)

    videos, target = _videos(2), _videos(2) / 2
    labels = torch.tensor([5, 7])
    found = FrameMean(score)(videos, captions=["a", "b"], target=target, labels=labels)
    assert told["captions"] == ["a", "a", "a", "b", "b", "b"]
    assert told["labels"].tolist() == [5, 5, 5, 7, 7, 7]
    assert torch.equal(told["images"][4], videos[1, :, 1])
    assert torch.equal(told["target"][4], target[1, :, 1])
    torch.testing.assert_close(found, labels + videos.flatten(1).mean(1).double())


def test_a_score_of_pictures_says_of_a_video_the_mean() -> None:
    spec = MetricSpec(name="psnr", kind="score", direction=Direction.MAXIMIZE)
    view = load_view(spec, CPU, shape=VIDEO)
    assert isinstance(view, Scorer)
    assert view.name == "psnr-frame-mean"
    videos, target = _videos(), _videos().flip(0)
    each = [pixels.psnr(videos[:, :, k], target[:, :, k]) for k in range(3)]
    found = torch.as_tensor(view.seen(videos, {"target": target}))[:, 0]
    torch.testing.assert_close(found, (sum(each) / 3).double())
    with pytest.raises(InvalidConfig, match="'psnr-frame-mean' needs target"):
        view.seen(videos, {})


def test_an_extractor_of_pictures_is_named_by_what_it_sees() -> None:
    spec = MetricSpec(name="digits")
    pictures, videos = (load_view(spec, CPU, shape=own) for own in ((1, 8, 8), VIDEO))
    assert (pictures.name, videos.name) == ("digits-a", "digits-a-frame-mean")
    assert isinstance(videos, Extractor)
    assert videos.seen(_videos()).shape == pictures.seen(_videos()[:, :, 0], {}).shape


def test_a_function_of_ones_own_sees_videos_unless_it_asks_for_frames() -> None:
    seen = []

    def own(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape))
        return images.flatten(1).mean(1, keepdim=True)

    whole = MetricSpec(name="live", options={"object": "own"})
    frames = MetricSpec(name="live", options={"object": "own"}, frames="mean")
    for spec, name in ((whole, "own"), (frames, "own-frame-mean")):
        view = load_view(spec, CPU, own, shape=VIDEO)
        assert view.name == name
        assert view.seen(_videos(), {}).shape == (4, 1)
    assert seen == [(4, 1, 3, 8, 8), (12, 1, 8, 8)]


@pytest.mark.parametrize("shape", [(8, 1024), (5,), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("name", ["digits", "inception", "ssim", "clip"])
def test_what_sees_pictures_alone_says_so(name: str, shape: tuple[int, ...]) -> None:
    is_score = name in ("ssim", "clip")
    kind, direction = (
        ("score", Direction.MAXIMIZE) if is_score else ("frechet", Direction.MINIMIZE)
    )
    spec = MetricSpec(name=name, kind=kind, direction=direction)
    with pytest.raises(InvalidConfig) as refused:
        load_view(spec, CPU, shape=shape)
    told = str(refused.value)
    assert told.startswith(f"metric.{'score' if is_score else 'features'}: ")
    assert "sees pictures (C, H, W) and, frame by frame, videos (C, T, H, W), and " in told
    assert f"this model makes {shape}; give [metric] kind = 'score'" in told


def test_an_extractor_of_pictures_that_a_program_brings_says_so_too() -> None:
    spec = MetricSpec(name="live", options={"object": "digits-a"})
    with pytest.raises(InvalidConfig, match="'digits-a' sees pictures"):
        load_view(spec, CPU, features(), shape=(8, 1024))


def test_frames_are_for_videos() -> None:
    options, where = {"object": "own"}, "metric.guard[0]"
    spec = MetricSpec(name="live", options=options, frames="mean", where=where)
    with pytest.raises(InvalidConfig, match=r"metric\.guard\[0\]\.frames: is for videos"):
        load_view(spec, CPU, lambda images: images.flatten(1), shape=(3, 8, 8))


def test_errors_of_numbers_are_for_every_rank_and_clip_pictures_alone() -> None:
    score = pixels.load_mse()
    for shape in ((6, 3), (5,), (2, 7)):
        far, zero = torch.full((3, *shape), 4.0), torch.zeros((3, *shape))
        assert score(far, target=zero).tolist() == [16.0] * 3
    for pictures in (torch.full((2, 1, 8, 8), 4.0), torch.full((2, 1, 3, 8, 8), 4.0)):
        assert score(pictures, target=torch.zeros_like(pictures)).tolist() == [1.0] * 2


def test_a_network_inside_moves_and_freezes_with_it() -> None:
    network = features()
    assert list(FrameMean(network).parameters()) == list(network.parameters())
    assert isinstance(FrameMean(ssim.load()), nn.Module)
    assert FrameMean(ssim.load()).needs == ("target",)
