"""How every rung of the ladder forecast the next, and what it cost, by a study's own notes.

One row per number of calls and rung: images and worker seconds per schedule, and Spearman's
correlations with the next rung, over the schedules measured first ("seeds", which no rung chose)
and over all ("end"), whose poor left early.  ``used`` is false where the trajectory's error was
not worth its images.  The correlation with the held-out noise is taken here: no search sees that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from s3search.search.predictor.proxy_correlation import Column, correlation_of
from s3search.search.questions import SEARCHING, Rung
from s3search.study.results.progress import RUNGS

_WHENS = ("seeds", "end")
_WORTH = ("n", "correlation", "n_top", "top_correlation")

Notes = Sequence[tuple[str, Mapping[str, Any]]]


def rung_rows(
    frame: pd.DataFrame,
    notes: Notes,
    jobs: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """The rows, in the ladder's order; none before the first schedules are measured.

    A rung of few images is called by the study's metric: "FD@25", "score@25".
    """
    latest: dict[int, dict[str, Mapping[str, Any]]] = {}
    for kind, content in notes:
        if kind == "ladder":
            latest.setdefault(content["nfe"], {})[content["when"]] = content
    scored = _scored(latest)
    rows: list[dict[str, Any]] = []
    for nfe, by_when in latest.items():
        of_nfe = frame[frame["nfe"] == nfe]
        seconds = {name: jobs[name]["seconds"] / n for name, n in scored.items() if name in jobs}
        own: dict[str, dict[str, Any]] = {}
        for when in _WHENS:
            for rung in by_when[when]["rungs"] if when in by_when else []:
                row = own.setdefault(rung["rung"], _row(nfe, rung, of_nfe, seconds))
                row["next"] = rung["next"]
                row[when] = {key: rung[key] for key in _WORTH}
                row["used"] = rung["rung"] != "trajectory" or by_when[when]["trajectory_used"]
        rows += [*own.values(), *_held_out(nfe, of_nfe)]
    return rows


def parts_of(notes: Notes) -> list[dict[str, Any]]:
    """Which parts of a search work for model and metric, as the check before it found: "rung",
    whether it "works", and what it does or why it does not, "says"; empty where nothing was
    checked.
    """
    found = [content["rungs"] for kind, content in notes if kind == RUNGS]
    return list(found[-1]) if found else []


def _scored(latest: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> dict[str, int]:
    """Schedules that each proxy scored, of all numbers of calls together."""
    found: dict[str, int] = {}
    for by_when in latest.values():
        newest = next(by_when[when] for when in reversed(_WHENS) if when in by_when)
        for name, n in newest["scored"].items():
            found[name] = found.get(name, 0) + n
    return {name: n for name, n in found.items() if n > 0}


def _row(
    nfe: int, rung: Mapping[str, Any], frame: pd.DataFrame, proxy_seconds: Mapping[str, float]
) -> dict[str, Any]:
    name, images = rung["rung"], rung["images"]
    seconds = proxy_seconds.get(name)
    if "@" in name:  # a measurement of so many images
        searching = frame[frame["rung"].isin(SEARCHING) & (frame["state"] == "complete")]
        n_images = float(searching["n_images"].sum())
        seconds = float(searching["seconds"].sum()) / n_images * images if n_images else None
    row = {"nfe": nfe, "rung": name, "next": None, "images": images, "seconds": seconds}
    row["used"] = True
    return row | dict.fromkeys(_WHENS)


def _held_out(nfe: int, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The finals and the validation."""
    done = frame[frame["state"] == "complete"]
    found = {rung: done[done["rung"] == rung.value] for rung in (Rung.FINALS, Rung.VALIDATION)}
    columns: list[Column] = [
        (rung.value, _newest_size(rows), _losses(rows)) for rung, rows in found.items()
    ]
    forecasts = [correlation_of(columns[0], columns[1]), None]
    held_out = []
    for (name, images, values), rows, forecast in zip(
        columns, found.values(), forecasts, strict=True
    ):
        if not values:
            continue
        following = None if forecast is None or not forecast.n else forecast
        held_out.append(
            {
                "nfe": nfe,
                "rung": name,
                "next": None if following is None else following.next,
                "images": images,
                "seconds": float(rows["seconds"].mean()),
                "used": True,
                "seeds": None,
                "end": None
                if following is None
                else {key: getattr(following, key) for key in _WORTH},
            }
        )
    return held_out


def _newest_size(rows: pd.DataFrame) -> int:
    return 0 if rows.empty else int(rows["n_images"].iloc[-1])


def _losses(rows: pd.DataFrame) -> dict[str, float]:
    newest = rows[rows["n_images"] == _newest_size(rows)]
    return dict(zip(newest["schedule_id"], newest["loss"].astype(float), strict=True))
