"""HPS v2.1, the human preference score: OpenCLIP's ViT-H/14 tuned to people's rankings.

    score = 100 cos(image features, caption features)

Tables of its authors lie at about 20 to 35.  Their function `hpsv2.score` gives the cosine, their
tables, as here, 100 times it.

Source: arXiv:2306.09341; weights xswu/HPSv2, file HPS_v2.1_compressed.pt.  The authors' package
asks for versions (protobuf < 4, pytest 7.2.0) that few environments can have, so their file is
read here into transformers' CLIPModel.  An image that is not square is resized whole, and padded
with black, as they do; in old versions of torchvision that resizing had no antialiasing, which
blurs less and changes the numbers of large images.
"""

import warnings
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.pretrained import pretrained, tokenizer
from s3search.metrics.scores.captions import CaptionScore
from s3search.metrics.scores.open_clip import clip_model
from s3search.metrics.scores.pickscore import TOKENIZER
from s3search.metrics.scores.weights import hub_file

REPOSITORY = "xswu/HPSv2"
FILE = "HPS_v2.1_compressed.pt"
_FIELD = "metric.path"


def load(
    path: str | None = None, *, tokens: str = TOKENIZER, download: bool = False
) -> CaptionScore:
    """The score ``hpsv2.1``.

    ``path`` is the authors' file, or a folder of a transformers CLIPModel with those weights;
    left out, the file is looked for in the hub's cache.  ``tokens`` is a folder or a hub id of a
    CLIP tokenizer.
    """
    if path is not None and Path(path).is_dir():
        model = pretrained("CLIPModel", _FIELD, path, download=False)
        n_tokens = int(model.config.text_config.vocab_size)
        found = tokenizer("metric.tokens", tokens, n_tokens, download=download)
    else:
        file = _file(path, download=download)
        state = _state(file)
        n_tokens = len(state.get("token_embedding.weight", ()))
        found = tokenizer("metric.tokens", tokens, n_tokens, download=download)
        model = clip_model(state, found.eos_token_id, field=_FIELD, source=str(file))
    side = int(model.config.vision_config.image_size)
    return CaptionScore("hpsv2.1", model, found, scale=100.0, view=partial(letterboxed, side=side))


def letterboxed(seen: Tensor, side: int) -> Tensor:
    """Levels with the longer side resized to ``side`` (bicubic, antialiased), in the middle of a
    black square.
    """
    height, width = seen.shape[-2:]
    if height == width:
        return seen  # the network resizes it
    to = tuple(round(side * own / max(height, width)) for own in (height, width))
    x = functional.interpolate(seen, size=to, mode="bicubic", antialias=True).clamp(0.0, 255.0)
    top, left = (side - to[0]) // 2, (side - to[1]) // 2
    return functional.pad(x, (left, side - to[1] - left, top, side - to[0] - top))


def _file(path: str | None, *, download: bool) -> Path:
    if path is None:
        return hub_file(_FIELD, REPOSITORY, FILE, download=download)
    if not Path(path).is_file():
        raise InvalidConfig(
            f"{_FIELD}: there is no file {path}; give {FILE} of {REPOSITORY}, a folder of a "
            "transformers CLIPModel, or leave it out with metric.download = true"
        )
    return Path(path)


def _state(path: Path) -> dict[str, Tensor]:
    """The state dict in the authors' checkpoint, which lies under ``state_dict``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidConfig(
            f"{_FIELD}: {path} is no file of weights alone ({reason}); take {FILE} of {REPOSITORY}"
        ) from error
    state = found.get("state_dict", found) if isinstance(found, dict) else {}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
