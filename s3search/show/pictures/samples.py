"""Images as PNG, and how any figure is written; matplotlib without a display or global state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.files import written_through
from s3search.solvers.shapes import PICTURE_AXES, VIDEO_AXES

_DPI = 130


def draw_samples(rows: Sequence[tuple[str, Tensor]], path: Path, title: str = "") -> None:
    """Writes a PNG with one labelled row of images per entry: pictures (n, C, H, W) in [-1, 1], or
    the middle frames of videos; raises `InvalidConfig` for samples that have no picture.
    """
    n = len(rows[0][1])
    figure = Figure(figsize=(0.62 * n + 2.6, 0.72 * len(rows) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), n, squeeze=False)
    for axes_row, (label, images) in zip(grid, rows, strict=True):
        for axes, image in zip(axes_row, pictures_of(images), strict=True):
            axes.imshow(displayable(image), cmap="gray", vmin=0.0, vmax=1.0)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    save_figure(figure, path)


def pictures_of(images: Tensor) -> Tensor:
    """What is drawn of images (n, ...): pictures (n, C, H, W) are, and of videos (n, C, T, H, W)
    the middle frames; raises `InvalidConfig` for others.
    """
    why = no_pictures(images.shape[1:])
    if why is not None:
        raise InvalidConfig(why)
    return images[:, :, images.shape[2] // 2] if is_video(images) else images


def is_video(images: Tensor) -> bool:
    """Whether images are videos (n, C, T, H, W)."""
    return images.ndim == VIDEO_AXES + 1


def no_pictures(shape: Sequence[int]) -> str | None:
    """Why samples of this ``shape`` are not drawn; None where they are."""
    if len(shape) in (PICTURE_AXES, VIDEO_AXES):
        return None
    return (
        f"samples of the shape {tuple(shape)} have no picture; those of pictures (C, H, W) are "
        "drawn, and the middle frames of videos (C, T, H, W)"
    )


def displayable(image: Tensor) -> np.ndarray:  # (C, H, W) in [-1, 1] -> (H, W[, 3]) in [0, 1]
    """Pixels as matplotlib and Pillow take them; of other than three channels the first."""
    pixels = ((image.float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[-1] != 3 else pixels


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG whole, or nothing."""
    with written_through(path) as part:
        figure.savefig(part, dpi=_DPI, format="png")
