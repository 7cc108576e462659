"""Extractors and scores of pictures, shown videos: frame by frame, and the mean of what they say.

A video (C, T, H, W) has the mean of its frames' features, one row (d,), or the mean of their
scores, one number.  So a sample stays one sample: a distance of n videos is one of n features, and
what is said of its error counts videos, whose frames are alike, and not frames.  This is not the
per-frame FID of some papers, in which every frame of every video is a sample; that one does not
see whether frames belong together.  Neither sees their order: motion is for an extractor of
videos.
"""

from typing import Any

from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.solvers.shapes import PICTURE_AXES, VIDEO_AXES, Shape

FRAMES = "mean"
"""What a study says (``frames``) of an extractor or score that is to see single frames."""

_SUFFIX = "frame-mean"


class FrameMean(nn.Module):
    """What ``pictures``, an extractor or a score, says of the frames of videos, averaged."""

    def __init__(self, pictures: Any) -> None:
        super().__init__()
        self.pictures = pictures  # a network becomes a part of this module, and moves with it

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of what must be given beside the videos."""
        return tuple(getattr(self.pictures, "needs", ()))

    def forward(self, videos: Tensor, **given: Any) -> Any:
        """Numbers (B, ...) of videos (B, C, T, H, W); what else is given goes to every frame."""
        n, n_frames = len(videos), videos.shape[2]
        each = {name: _for_frames(value, n, n_frames) for name, value in given.items()}
        found = self.pictures(_frames_of(videos), **each)
        if not isinstance(found, Tensor) or found.ndim == 0 or len(found) != n * n_frames:
            return found  # the caller says what it should have been
        return found.reshape(n, n_frames, *found.shape[1:]).mean(dim=1)


def seeing(function: Any, name: str, shape: Shape, *, frames: str | None, key: str) -> Any:
    """``function``, an extractor or score called ``name``, as it sees what a model makes, and its
    name then; raises `InvalidConfig` where it sees no such ``shape``.

    One with a true ``sees_pictures`` is made for pictures; so is one of which a study says
    ``frames``.  ``key`` of the study file names it.
    """
    is_video, sees_pictures = len(shape) == VIDEO_AXES, getattr(function, "sees_pictures", False)
    if sees_pictures:
        check_pictures(name, shape, key=key)
    if frames is not None and not is_video:
        table = key.rpartition(".")[0]
        raise InvalidConfig(
            f"{table}.frames: is for videos (C, T, H, W), and this model makes {shape}; remove "
            "the key"
        )
    if is_video and (sees_pictures or frames is not None):
        return FrameMean(function), f"{name}-{_SUFFIX}"
    return function, name


def check_pictures(name: str, shape: Shape, *, key: str) -> None:
    """Raises `InvalidConfig` unless what is called ``name`` and sees pictures sees this
    ``shape``.
    """
    if len(shape) not in (PICTURE_AXES, VIDEO_AXES):
        table = key.rpartition(".")[0]
        raise InvalidConfig(
            f"{key}: {name!r} sees pictures (C, H, W) and, frame by frame, videos (C, T, H, W), "
            f"and this model makes {shape}; give [{table}] kind = 'score' with a score of your "
            "own, or an extractor of your own in features"
        )


def _frames_of(videos: Tensor) -> Tensor:  # (B, C, T, H, W) -> (B T, C, H, W)
    return videos.movedim(2, 1).flatten(0, 1)


def _for_frames(value: Any, n: int, n_frames: int) -> Any:
    """What belongs to each of ``n`` videos, for each of their frames."""
    if isinstance(value, Tensor):
        if value.ndim == VIDEO_AXES + 1 and value.shape[2] == n_frames:
            return _frames_of(value)
        return value.repeat_interleave(n_frames, dim=0)
    if isinstance(value, list | tuple) and len(value) == n:
        return [each for each in value for _ in range(n_frames)]
    return value
