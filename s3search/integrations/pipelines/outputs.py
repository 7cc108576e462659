"""What a pipeline returns, as tensors: images and frames in [-1, 1], all else as it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.errors import EvaluationFailed

_PROCESSORS = ("image_processor", "video_processor")


def tensor_of(output: Any, pipe: Any, output_type: str | None) -> Tensor:
    """The first field of a pipeline's output (B, ...), channels before height and width.

    Pictures and arrays of them, and tensors of a pipeline with an image or video processor, are in
    [0, 1] and become [-1, 1], unless they are latents.  Raises `EvaluationFailed` for anything
    that is no numbers.
    """
    first = output if isinstance(output, Tensor | np.ndarray) else output[0]
    if isinstance(first, Tensor):
        is_processed = any(getattr(pipe, name, None) is not None for name in _PROCESSORS)
        return first * 2 - 1 if is_processed and output_type != "latent" else first
    found = _array(first)
    if found.ndim < 4:  # audio
        return torch.from_numpy(found)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, -1, -3))) * 2 - 1


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
