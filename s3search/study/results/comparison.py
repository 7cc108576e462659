"""Held-out comparisons in plain data: paired intervals, the second extractor, real images."""

from dataclasses import asdict
from enum import StrEnum
from typing import Any

import pandas as pd

from s3search.metrics.intervals import difference_interval, ratio_interval
from s3search.search.trial import Origin
from s3search.study.database.store import StudyStore
from s3search.study.results.frame import (
    HeldOut,
    Scored,
    best_of,
    evaluations_frame,
    solvers_at_their_best,
    validated,
)


class Verdict(StrEnum):
    """Whether the found schedule beats the best published one, by the paired interval."""

    BEATS = "beats"
    LOSES = "loses"
    UNDECIDED = "undecided"


def comparison_of(store: StudyStore, frame: pd.DataFrame | None = None) -> dict[str, Any]:
    """Per NFE the best found and every solver at its best, each against the winner; what each
    extractor says of found against published; and the distance of real images.
    """
    frame = evaluations_frame(store) if frame is None else frame
    scored = validated(frame, store.config)
    rows: list[dict[str, Any]] = []
    against = []
    for nfe in store.config.space.nfe:
        of_nfe = [row for row in scored if row.nfe == nfe]
        found, _ = best_of(of_nfe)
        shown = [*([found] if found else []), *solvers_at_their_best(of_nfe)]
        rows += [_row(row, of_nfe[0]) for row in shown]
        against += [{"nfe": nfe, **each}] if (each := against_published(of_nfe)) else []
    return {
        "study": store.name,
        "state": store.state,
        "metric": "frechet",
        "rows": rows,
        "against_published": against,
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


def against_published(scored: list[Scored]) -> dict[str, Any] | None:
    """The best found schedule against the best published one of one NFE, in both extractors.

    The ratio says how many times as far the published one is.  None unless there are both.
    """
    found, published = best_of(scored)
    if found is None or published is None:
        return None
    first = _verdict(found.held_out, published.held_out)
    second = None
    if found.second is not None and published.second is not None:
        second = _verdict(found.second, published.second)
        second["agrees"] = _agrees(second["verdict"])
    return {
        "found": found.schedule_id,
        "published": published.name,
        **first,
        "witness": second,
    }


def floors(store: StudyStore) -> list[dict[str, Any]]:
    """The distance of real images, resampled, in every extractor that the study's latest
    validation used; empty where the reference was no images.
    """
    n_images = store.config.held_out_images
    answers = [answer for answer in store.answers("floor") if answer]
    current = [each for each in answers if each[0]["n_images"] == n_images]
    return list(current[-1]) if current else []


def _row(row: Scored, winner: Scored) -> dict[str, Any]:
    second = None
    if row.second is not None:
        second = _measured(row.second)
        second |= _relative(row.second, winner.second) if winner.second else {}
    return {
        "schedule_id": row.schedule_id,
        "name": row.name,
        "is_baseline": row.is_baseline,
        "is_winner": row is winner,
        "nfe": row.nfe,
        "n_images": row.n_images,
        "noise_seed": row.noise_seed,
        **_measured(row.held_out),
        **_relative(row.held_out, winner.held_out),
        "search_value": row.search_value,
        "search_n_images": row.search_n_images,
        "block_value": row.block_value,
        "optimism": row.optimism,
        "witness": second,
    }


def _measured(one: HeldOut) -> dict[str, Any]:
    return {
        "extractor": one.extractor,
        "reference_digest": one.reference_digest,
        "value": one.value,
        "standard_error": one.standard_error,
        "interval_95": one.interval,
    }


def _relative(one: HeldOut, other: HeldOut) -> dict[str, Any]:
    """Difference and ratio to ``other``, with intervals where both have replicates."""
    a, b = one.replicates, other.replicates
    paired = a is not None and b is not None and len(a) == len(b)
    return {
        "difference": one.value - other.value,
        "difference_95": difference_interval(a, b) if a and b and paired else None,
        "ratio": one.value / other.value if other.value > 0.0 else None,
        "ratio_95": ratio_interval(a, b) if a and b and paired else None,
    }


def _verdict(found: HeldOut, published: HeldOut) -> dict[str, Any]:
    relative = _relative(published, found)
    between = relative["difference_95"]
    verdict = Verdict.UNDECIDED
    if between is not None and between[0] > 0.0:
        verdict = Verdict.BEATS
    elif between is not None and between[1] < 0.0:
        verdict = Verdict.LOSES
    return {"extractor": found.extractor, "verdict": verdict.value, **relative}


def _agrees(verdict: str) -> bool | None:
    """Whether the second extractor agrees that the found schedule beats the published one."""
    return None if verdict == Verdict.UNDECIDED else verdict == Verdict.BEATS
