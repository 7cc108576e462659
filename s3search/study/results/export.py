"""Out of the study: the best schedule of each NFE, with its provenance."""

from typing import Any

import pandas as pd

from s3search.errors import InvalidConfig, StudyConflict
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung
from s3search.study.database.store import StudyStore
from s3search.study.results.claims import claims_of, floors
from s3search.study.results.exported import exported_first
from s3search.study.results.frame import Scored, best_of, evaluations_frame, validated, why_nothing


def best_schedule(
    store: StudyStore, nfe: int | None = None, frame: pd.DataFrame | None = None
) -> tuple[Schedule, Scored]:
    """The validated schedule with the best held-out value at ``nfe``, found or published, that
    the study's target can express and nobody vetoed.

    Raises `InvalidConfig` for an NFE that the study does not search and `StudyConflict` before
    validation, or if all are vetoed.
    """
    searched = store.config.space.nfe
    if nfe is None and len(searched) == 1:
        nfe = searched[0]
    if nfe not in searched:
        raise InvalidConfig(
            f"study {store.name!r} searches NFE {', '.join(map(str, searched))}, asked for {nfe}; "
            "name one of them with --nfe"
        )
    frame = evaluations_frame(store) if frame is None else frame
    scored = exported_first(store, validated(frame, store.config, nfe))
    if not scored:
        raise StudyConflict(why_nothing(store, frame, nfe))
    best, schedule = scored[0], store.schedule(scored[0].schedule_id)
    source = {
        **_provenance(store, frame, best, scored),
        "target": store.space.get("target"),
        "tied_to": list(schedule.tied_to),
    }
    return with_provenance(schedule, source), best


def _provenance(
    store: StudyStore, frame: pd.DataFrame, best: Scored, scored: list[Scored]
) -> dict[str, Any]:
    """Where a schedule comes from and how good it is, in plain data; a value names all it
    needs.
    """
    row = frame[
        (frame["schedule_id"] == best.schedule_id) & (frame["rung"] == Rung.VALIDATION.value)
    ].iloc[-1]
    _, baseline = best_of(scored)
    claim = claims_of(store, frame, scored)[best.nfe]
    return {
        "study": store.name,
        "origin": best.name,
        "metric": row["metric"],
        "direction": store.config.direction.value,
        "extractor": row["extractor"],
        "reference_digest": row["reference_digest"],
        "model_fingerprint": row["model_fingerprint"],
        "code_version": row["code_version"],
        "held_out": {
            "value": best.value,
            "standard_error": best.standard_error,
            "interval_95": best.held_out.interval,
            "n_images": best.n_images,
            "noise_seed": best.noise_seed,
        },
        "search": {
            "value": best.search_value,
            "n_images": best.search_n_images,
            "noise_seed": store.config.search_noise_seed,
            "held_out_value": best.block_value,
        },
        "optimism": best.optimism,
        "best_baseline": None
        if baseline is None
        else {"name": baseline.name, "held_out": baseline.value},
        "against_published": claim.against_published,
        "claim": claim.to_dict(),
        "witness": None
        if best.second is None
        else {
            "extractor": best.second.extractor,
            "reference_digest": best.second.reference_digest,
            "value": best.second.value,
            "interval_95": best.second.interval,
        },
        "floor": floors(store),
    }


def with_provenance(schedule: Schedule, where_from: dict[str, Any]) -> Schedule:
    """A copy of a schedule, with its id, that says where it comes from."""
    return schedule.model_copy(update={"provenance": where_from})
