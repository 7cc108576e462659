"""What a study may spend and how much of it is spent: one meaning for all who tell it.

A budget is of images: an evaluation is a whole one, ``search.n_images`` of them.  What was stopped
early, polishing and finals count by the images that they took.  Or it is of seconds.
"""

from dataclasses import dataclass

from sqlalchemy import func, select

from s3search.search.trial import BASELINE, SEED
from s3search.study.database.store import StudyStore
from s3search.study.database.tables import PROPOSALS
from s3search.study.file.config import SearchTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The budget of a study's search."""

    words: str  # "300 evaluations x 1,000 images"
    evaluations: int | None  # None where it is time
    images: float  # spent
    share: float | None  # spent, 0 to 1; None where nobody knows


def budget_of(store: StudyStore, *, elapsed: float | None = None) -> Budget:
    """As the database has it; ``elapsed``: seconds of the present run, where it is known."""
    images, total, search = store.images_spent(), total_of(store), store.config.search
    spent = share_of(search, total, images, store.seconds_spent(), elapsed)
    is_over = store.state in ("validating", "done")
    return Budget(
        words=budget_words(search, total),
        evaluations=total,
        images=images,
        share=1.0 if is_over else spent,
    )


def total_of(store: StudyStore) -> int | None:
    """The budget in evaluations: all of `s3`, of other searches what comes on top of the seeds
    that are proposed so far.
    """
    search = store.config.search
    if search.evaluations is None or search.algorithm == "s3":
        return search.evaluations
    given = PROPOSALS.c.origin.startswith(BASELINE) | PROPOSALS.c.origin.startswith(SEED)
    (row,) = store.read(
        lambda study: select(func.count().label("n")).where(PROPOSALS.c.study_id == study, given)
    )
    return search.evaluations + int(row["n"])


def budget_words(search: SearchTable, total: int | None) -> str:
    """The budget as it is said; ``total``: in evaluations."""
    said = [] if total is None else [f"{total:,} evaluations x {search.n_images:,} images"]
    for seconds, name in ((search.gpu_seconds, "worker"), (search.wall_seconds, "wall")):
        said += [] if seconds is None else [f"{seconds:,.0f} {name} seconds"]
    return " or ".join(said)


def share_of(
    search: SearchTable,
    total: int | None,
    images: float,
    worker_seconds: float,
    elapsed: float | None,
) -> float | None:
    """The share that is spent of the limit that is nearest, at most 1."""
    shares = []
    if total is not None:
        shares.append(images / (total * search.n_images) if total else 1.0)
    if search.gpu_seconds is not None:
        shares.append(worker_seconds / search.gpu_seconds)
    if search.wall_seconds is not None and elapsed is not None:
        shares.append(elapsed / search.wall_seconds)
    return min(1.0, max(shares)) if shares else None
