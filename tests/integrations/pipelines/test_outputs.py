"""What a pipeline returns, as tensors of the rank that metrics see."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image

from s3search.integrations.pipelines.outputs import tensor_of

VIDEOS = torch.rand((2, 3, 5, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
PIPE = SimpleNamespace(video_processor=VideoProcessor(vae_scale_factor=8))


@pytest.mark.parametrize(("output_type", "off"), [("pt", 1e-6), ("np", 1e-6), ("pil", 1 / 127)])
def test_frames_of_a_video_processor_come_after_the_channels(output_type: str, off: float) -> None:
    frames = PIPE.video_processor.postprocess_video(VIDEOS, output_type=output_type)
    found = tensor_of((frames,), PIPE, output_type)
    assert found.shape == VIDEOS.shape
    torch.testing.assert_close(found, VIDEOS, rtol=0, atol=off, check_dtype=False)


def test_latents_of_videos_stay_as_they_are() -> None:
    assert torch.equal(tensor_of((VIDEOS,), PIPE, "latent"), VIDEOS)


def test_pictures_have_no_frames() -> None:
    picture = Image.fromarray(np.full((8, 8, 3), 255, dtype=np.uint8))
    found = tensor_of(([picture, picture],), SimpleNamespace(image_processor=1), "pil")
    assert found.shape == (2, 3, 8, 8)
    assert (found == 1.0).all()


def test_sound_is_taken_as_it_is() -> None:
    waves = np.linspace(-2.0, 2.0, 24, dtype=np.float32).reshape(2, 12)
    assert torch.equal(tensor_of((waves,), SimpleNamespace(), "np"), torch.from_numpy(waves))
