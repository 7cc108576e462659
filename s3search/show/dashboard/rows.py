"""Rows of a ranking as people see them: with their noise levels and samples in small."""

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from s3search.schedules.schedule import Schedule
from s3search.show.dashboard.artifacts import Picture, samples_of
from s3search.show.dashboard.views import Ranked
from s3search.show.pictures import time_lines
from s3search.show.report.data import Pick
from s3search.show.report.samples import ImageGrid, NoSamples, Samples, label_of, two_of

_WIDTH, _HEIGHT, _EDGE = 64, 24, 3  # of a drawing, in its own units
_WIDEST = 400  # pixels of samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSchedule:
    """A schedule of a ranking, its noise levels as the points of a line, and its samples."""

    ranked: Ranked
    points: str
    samples: str | None  # data:image/...; shown in small


def rows_of(
    schedule_of: Callable[[str], Schedule],
    ranked: Sequence[Ranked],
    artifacts: Path | None,
    study: str,
) -> Iterator[ShownSchedule]:
    """The rows of these schedules."""
    for each in ranked:
        schedule = schedule_of(each.schedule_id)
        pictures = samples_of(artifacts, [study], schedule)
        samples = data_url(pictures[0]) if pictures else None
        yield ShownSchedule(ranked=each, points=_points(schedule), samples=samples)


def kept_samples(
    artifacts: Path | None, study: str, picks: Mapping[int, Sequence[Pick]], noise_seed: int
) -> Samples | NoSamples:
    """The samples of a study's report, as far as its artifacts have them."""
    grids = {}
    for nfe, own in picks.items():
        grids[nfe] = tuple(
            _grid(label_of(pick), picture)
            for pick in two_of(own)
            for picture in samples_of(artifacts, [study], pick.schedule)[:1]
        )
    if not any(grids.values()):
        return NoSamples(
            "A launch puts samples on the pages of schedules, and so does "
            "`s3search publish --samples 24`, of pictures and videos; nothing else has any."
        )
    return Samples(n_images=None, noise_seed=noise_seed, grids=grids, real=None)


def _grid(label: str, picture: Picture) -> ImageGrid:
    with Image.open(io.BytesIO(picture.content)) as image:
        width, height = image.size
    return ImageGrid(
        label=label,
        source=data_url(picture, width),
        width=width,
        height=height,
        is_pixelated=picture.mimetype == "image/png",
    )


def _points(schedule: Schedule) -> str:
    """Where the noise levels lie, on a logarithmic axis, the noisiest first."""
    lams = [line.lam for line in time_lines(schedule)]
    finite = [lam for lam in lams if math.isfinite(lam)] or [0.0]
    low, high = min(finite), max(finite)
    shares = [(min(max(lam, low), high) - low) / ((high - low) or 1.0) for lam in lams]
    steps = max(len(lams) - 1, 1)
    return " ".join(
        f"{_EDGE + (_WIDTH - 2 * _EDGE) * i / steps:.1f},"
        f"{_EDGE + (_HEIGHT - 2 * _EDGE) * share:.1f}"
        for i, share in enumerate(shares)
    )


def data_url(picture: Picture, widest: int = _WIDEST) -> str:
    """The picture as an address, not wider than so many pixels."""
    content, mimetype = picture.content, picture.mimetype
    with Image.open(io.BytesIO(content)) as image:
        if image.width > widest:
            small = image.convert("RGB")
            small.thumbnail((widest, widest), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=80)
            content, mimetype = buffer.getvalue(), "image/jpeg"
    return f"data:{mimetype};base64,{base64.b64encode(content).decode()}"
