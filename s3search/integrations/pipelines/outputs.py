"""What a pipeline returns, as tensors: images and frames in [-1, 1], all else as it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed
from s3search.solvers.shapes import VIDEO_AXES

_PROCESSORS = ("image_processor", "video_processor")


def tensor_of(output: Any, pipe: Any, output_type: str | None) -> Tensor:
    """The first field of a pipeline's output: pictures (B, C, H, W), videos (B, C, T, H, W), or
    whatever else it makes (B, ...).

    Pictures and arrays of them, and tensors of a pipeline with an image or video processor, are in
    [0, 1] and become [-1, 1], unless they are latents; processors put frames before channels.
    Raises `EvaluationFailed` for anything that is no numbers.
    """
    first = output if isinstance(output, Tensor | np.ndarray) else output[0]
    if isinstance(first, Tensor):
        is_processed = any(getattr(pipe, name, None) is not None for name in _PROCESSORS)
        is_shown = is_processed and output_type != "latent"
        return _frames_last(first) * 2 - 1 if is_shown else first
    found = _array(first)
    if found.ndim < 4:  # audio
        return torch.from_numpy(found)
    return _frames_last(torch.from_numpy(np.moveaxis(found, -1, -3))).contiguous() * 2 - 1


def _frames_last(shown: Tensor) -> Tensor:
    """Videos (B, T, C, H, W) as (B, C, T, H, W), pictures as they are."""
    return shown.movedim(1, 2) if shown.ndim == VIDEO_AXES + 1 else shown


def _array(found: Any) -> np.ndarray:
    """Numbers (B, ...), of pictures in [0, 1] with their channels last."""
    if isinstance(found, np.ndarray):
        return found
    if isinstance(found, Sequence) and not isinstance(found, str) and len(found):
        return np.stack([_array(each) for each in found])
    if hasattr(found, "convert"):  # a picture of PIL
        return np.asarray(found.convert("RGB"), dtype=np.float32) / 255
    raise EvaluationFailed(
        f"the pipeline returned {type(found).__name__}, which holds no numbers; name another "
        "output_type that its call knows ('pt', 'latent', 'np')"
    )
