"""Image grids of images: the same noise in every column, a schedule in every row."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from s3search.cluster.asking import Pool, described, images_by
from s3search.errors import EvaluationFailed
from s3search.evaluation.record import ImagesRequest
from s3search.schedules.schedule import Schedule
from s3search.search.trial import Origin, OriginKind
from s3search.show.pictures import draw_samples, is_video, no_pictures
from s3search.study.database.store import StudyStore
from s3search.study.results.frame import Scored, best_of, evaluations_frame, validated

N_IMAGES = 16


def draw_grid(
    pool: Pool, rows: Sequence[tuple[str, Schedule]], path: Path, *, noise_seed: int
) -> None:
    """Writes a PNG of the first images of every labelled schedule."""
    requests = [
        ImagesRequest(schedule=schedule, n_images=N_IMAGES, noise_seed=noise_seed)
        for _, schedule in rows
    ]
    made: dict[str, Tensor] = {}
    for schedule, images in images_by(pool, requests):
        if isinstance(images, EvaluationFailed):
            raise images
        made[schedule.id] = images
    drawn = [(label, made[schedule.id]) for label, schedule in rows]
    frames = ", middle frames" if any(is_video(images) for _, images in drawn) else ""
    draw_samples(drawn, path, f"same noise in every column{frames}")


def draw_comparison(store: StudyStore, pool: Pool, path: Path) -> list[str]:
    """Writes, for every number of calls, the best found schedule, the best published one and what
    the pipeline's own scheduler makes, if that was validated; the labels of the rows.  Draws
    nothing, and has no labels, where what the model makes has no picture (`no_pictures`).
    """
    about = described(pool)
    if no_pictures(about.image_shape) is not None:
        return []
    own = about.own_sampler
    scored = validated(evaluations_frame(store), store.config)
    rows: list[tuple[str, Scored]] = []
    for nfe in store.config.space.nfe:
        of_nfe = [row for row in scored if row.nfe == nfe]
        found, published = best_of(of_nfe)
        usual = None
        if own is not None:
            usual = next((row for row in of_nfe if _is_usual(row.origin, own.scheduler)), None)
        named = (("s3search", found), ("best published", published), ("pipeline's own", usual))
        rows += [(label, row) for label, row in named if row is not None]
    labelled = [
        (
            f"{label}, NFE {row.nfe}\n{row.name if row.is_baseline else row.schedule_id[:8]}\n"
            f"{row.held_out.words.noun} {row.value:.3f}",
            store.schedule(row.schedule_id),
        )
        for label, row in rows
    ]
    draw_grid(pool, labelled, path, noise_seed=store.config.validation_noise_seed)
    return [label for label, _ in labelled]


def _is_usual(origin: Origin, scheduler: str) -> bool:
    """Whether a pipeline with this scheduler runs it unless told otherwise."""
    return origin.kind is OriginKind.PIPELINE or origin.solver == scheduler
