"""Images of a page: what the best found and the best published schedule make of the same noise,
beside a fine solve of it and real images.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from s3search.errors import S3SearchError
from s3search.evaluation.evaluator import Evaluator
from s3search.schedules.published import dpmpp_2m
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End, EndRule
from s3search.show.pictures import displayable, is_video, no_pictures, pictures_of
from s3search.show.report.data import Pick
from s3search.study.file.config import StudyConfig

REFERENCE_CALLS = 100
_COLUMNS = 6
_LOOKED_AT = 8  # times as many images as are shown, among which those with the best scores are
_LARGEST_SIDE = 192  # pixels of an image on the page
_LOSSLESS_SIDE = 64  # smaller images are shown pixel by pixel
_QUALITY = 88


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGrid:
    """Images side by side, as the address of one picture."""

    label: str
    source: str  # data:image/...
    width: int
    height: int
    is_pixelated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Image grids by NFE, and real images."""

    n_images: int | None  # of each grid; None where that was not kept
    noise_seed: int
    grids: Mapping[int, tuple[ImageGrid, ...]]
    real: ImageGrid | None
    best_scores: Mapping[int, tuple[ImageGrid, ...]] = field(default_factory=dict)  # of a score
    n_looked_at: int = 0  # images that these are the best of


@dataclass(frozen=True, slots=True)
class NoSamples:
    """Why there are none."""

    reason: str


def make_samples(
    config: StudyConfig, picks: Mapping[int, Sequence[Pick]], n_images: int
) -> Samples | NoSamples:
    """Samples of every NFE from the noise of the validation; the model is loaded in this
    process.
    """
    if n_images == 0:
        return NoSamples("They were not asked for.")
    try:
        evaluator = Evaluator(replace(config.evaluator_spec, second=None, guards=()))
        if (why := no_pictures(evaluator.image_shape)) is not None:
            return NoSamples(f"{why[:1].upper()}{why[1:]}.")
        return _samples(config, evaluator, picks, n_images)
    except S3SearchError as error:
        return NoSamples(f"The model could not be run on this machine: {error}")
    except Exception as error:  # the study's own code may raise anything
        kind = type(error).__name__
        return NoSamples(f"The model could not be run on this machine: {kind}: {error}")


def _samples(
    config: StudyConfig, evaluator: Evaluator, picks: Mapping[int, Sequence[Pick]], n_images: int
) -> Samples:
    seed = config.validation_noise_seed
    end = End(rule=EndRule.DENOISE)
    fine = dpmpp_2m(evaluator.denoiser.process, nfe=REFERENCE_CALLS, spacing="karras", end=end)

    def made(label: str, schedule: Schedule) -> ImageGrid:
        return image_grid(label, evaluator.images(schedule, n_images, seed))

    reference = made(f"fine solve, {REFERENCE_CALLS} calls", fine)
    grids = {
        nfe: (
            reference,
            *(made(label_of(p), p.schedule) for p in two_of(own)),
        )
        for nfe, own in picks.items()
    }
    real = evaluator.reference_images
    return Samples(
        n_images=n_images,
        noise_seed=seed,
        grids=grids,
        real=None
        if real is None or len(real) == 0
        else image_grid("real images", real[_spread(len(real), n_images)]),
        best_scores={}
        if not config.evaluator_spec.metric.is_score
        else {nfe: _of_best_scores(evaluator, own, n_images, seed) for nfe, own in picks.items()},
        n_looked_at=_LOOKED_AT * n_images,
    )


def _of_best_scores(
    evaluator: Evaluator, picks: Sequence[Pick], n_images: int, seed: int
) -> tuple[ImageGrid, ...]:
    """The images of the best found schedule to which the study's score is kindest, and what the
    best published one makes of the same noises: what a search by this score makes more of.
    """
    shown = list(two_of(picks))
    found = next((pick for pick in shown if not pick.is_baseline), None)
    if found is None:
        return ()
    metric, losses = evaluator.metric, []
    batches = evaluator.batches(found.schedule, _LOOKED_AT * n_images, seed, with_targets=True)
    for images, condition in batches:
        losses += [metric.direction.loss(own) for own in metric.seen(images, condition)[:, 0]]
    best = torch.as_tensor(np.argsort(losses, kind="stable")[:n_images].copy())
    return tuple(
        image_grid(
            label_of(pick), evaluator.images(pick.schedule, _LOOKED_AT * n_images, seed)[best]
        )
        for pick in shown
    )


def image_grid(label: str, images: Tensor) -> ImageGrid:  # (n, C, H, W) in [-1, 1]
    """A picture of images in rows, of videos (n, C, T, H, W) of their middle frames; raises
    `InvalidConfig` for samples that have no picture.
    """
    tiles = [_tile(image) for image in pictures_of(images)]
    height, width = tiles[0].shape[:2]
    gap = max(1, width // 32)
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    picture = Image.new("RGB", size, (128, 128, 128))
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        picture.paste(Image.fromarray(tile), (column * (width + gap), row * (height + gap)))
    is_small = max(width, height) <= _LOSSLESS_SIDE
    buffer = io.BytesIO()
    if is_small:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return ImageGrid(
        label=f"{label}, middle frames" if is_video(images) else label,
        source=f"data:image/{'png' if is_small else 'jpeg'};base64,{encoded}",
        width=size[0],
        height=size[1],
        is_pixelated=is_small,
    )


def label_of(pick: Pick) -> str:
    """What stands below samples of a schedule."""
    return f"{pick.label}, {pick.words.noun} {pick.value:.3f}"


def two_of(picks: Sequence[Pick]) -> Iterator[Pick]:
    """The best published and the best found, as far as there are both."""
    for is_baseline in (True, False):
        yield from [pick for pick in picks if pick.is_baseline is is_baseline][:1]


def _tile(image: Tensor) -> np.ndarray:
    pixels = np.round(255 * displayable(image)).astype(np.uint8)
    picture = Image.fromarray(pixels).convert("RGB")
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _spread(n: int, k: int) -> Tensor:
    """Indices of ``k`` of ``n`` images, evenly chosen."""
    k = min(k, n)
    return torch.arange(k) * n // k
