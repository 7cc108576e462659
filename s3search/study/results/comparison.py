"""Held-out comparisons in plain data: paired intervals, the second extractor, real images."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from s3search.search.trial import Origin
from s3search.study.database.store import StudyStore
from s3search.study.results.claims import claims_of, floors, relative
from s3search.study.results.exported import exported_first
from s3search.study.results.frame import (
    HeldOut,
    Scored,
    best_of,
    evaluations_frame,
    solvers_at_their_best,
    validated,
)


def comparison_of(store: StudyStore, frame: pd.DataFrame | None = None) -> dict[str, Any]:
    """Per NFE the best found and every solver at its best, each against the winner; what may be
    claimed of found against published; and the distance of real images.
    """
    frame = evaluations_frame(store) if frame is None else frame
    scored = exported_first(store, validated(frame, store.config))
    claims = claims_of(store, frame, scored)
    rows: list[dict[str, Any]] = []
    for nfe in store.config.space.nfe:
        of_nfe = [row for row in scored if row.nfe == nfe]
        found, _ = best_of(of_nfe)
        shown = [*([found] if found else []), *solvers_at_their_best(of_nfe)]
        rows += [_row(row, of_nfe[0]) for row in shown]
    against = [(nfe, claim.against_published) for nfe, claim in claims.items()]
    return {
        "study": store.name,
        "state": store.state,
        "metric": store.config.metric.kind,
        "direction": store.config.direction.value,
        "rows": rows,
        "against_published": [{"nfe": nfe, **each} for nfe, each in against if each is not None],
        "claims": [claim.to_dict() for claim in claims.values()],
        "floor": floors(store),
        "vetoed": _vetoed(store, frame),
    }


def _vetoed(store: StudyStore, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """What a person left out of the comparison."""
    known = store.vetoes()
    names = frame[frame["schedule_id"].isin(list(known))].drop_duplicates("schedule_id")
    origins = dict(zip(names["schedule_id"], names["origin"], strict=True))
    return [
        {**asdict(each), "name": Origin.of_text(origins.get(each.schedule_id, "")).name}
        for each in known.values()
    ]


def _row(row: Scored, winner: Scored) -> dict[str, Any]:
    second = None
    if row.second is not None:
        second = _measured(row.second)
        second |= relative(row.second, winner.second) if winner.second else {}
    return {
        "schedule_id": row.schedule_id,
        "name": row.name,
        "is_baseline": row.is_baseline,
        "origin": row.origin.kind.value,
        "is_winner": row is winner,
        "nfe": row.nfe,
        "n_images": row.n_images,
        "noise_seed": row.noise_seed,
        **_measured(row.held_out),
        **relative(row.held_out, winner.held_out),
        "search_value": row.search_value,
        "search_n_images": row.search_n_images,
        "block_value": row.block_value,
        "optimism": row.optimism,
        "guards": list(row.guards),
        "broken": list(row.broken),
        "witness": second,
    }


def _measured(one: HeldOut) -> dict[str, Any]:
    return {
        "metric": one.kind,
        "extractor": one.extractor,
        "reference_digest": one.reference_digest,
        "value": one.value,
        "standard_error": one.standard_error,
        "interval_95": one.interval,
    }
