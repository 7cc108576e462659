"""What a study's page shows while the study runs, in parts that its script exchanges.

The page asks every two seconds for the parts whose digests it does not have.  What follows from
results is kept until there is another one; the time left is looked up each time.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from s3search.search.stages import stage_words
from s3search.show.dashboard.rows import ShownSchedule, rows_of
from s3search.show.dashboard.views import ranking
from s3search.show.report.data import progress_of
from s3search.show.report.graphs import progress_figure
from s3search.show.report.svg import svg_of
from s3search.study.database.store import StudyStore
from s3search.study.metric_words import MetricWords
from s3search.study.results.exported import remarks_of
from s3search.study.results.watching import Watched, look

PARTS = ("head", "best")  # each is a template

_SHOWN = 10  # schedules of each number of calls
_STATES = {
    "searching": "preparing",
    "interrupted": "interrupted; the same launch goes on with it",
    "failed": "failed; the same launch goes on with it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One number of calls: the best so far as a graph, and the first of the ranking."""

    nfe: int
    drawing: Markup
    rows: tuple[ShownSchedule, ...]
    samples: str | None  # data:image/... of the first that has any
    sampled: str  # which one that is


def curves_of(store: StudyStore, frame: pd.DataFrame, artifacts: Path | None) -> list[Curve]:
    """What the results so far show; matplotlib draws."""
    jobs, config = store.job_costs(), store.config
    words = MetricWords.of(config.metric)
    ranked = ranking(frame, config.held_out_images, remarks_of(store, frame))
    found = []
    for nfe, rows in sorted(ranked.items()):
        curve = progress_of(frame, jobs, nfe, words)
        best = f"{rows[0].value:.4g}, {rows[0].origin}"
        drawing = svg_of(
            functools.partial(progress_figure, curve),
            f"live-{nfe}",
            f"Best {words.noun} so far against network calls at NFE {nfe}: {best}.",
        )
        shown = tuple(rows_of(store.schedule, rows[:_SHOWN], artifacts, store.name))
        sampled = next((row for row in shown if row.samples is not None), None)
        found.append(
            Curve(
                nfe=nfe,
                drawing=Markup(drawing),
                rows=shown,
                samples=None if sampled is None else sampled.samples,
                sampled="" if sampled is None else _named(sampled),
            )
        )
    return found


def head_of(store: StudyStore) -> dict[str, Any]:
    """How far the study is now, for the part `head`."""
    seen = look(store)
    stage = seen.progress.stage
    return {
        "seen": seen,
        "now": seen.progress,
        "stage": _STATES.get(stage, stage_words(stage).title),
        "is_over": is_over(seen),
    }


def is_over(seen: Watched) -> bool:
    """Whether nothing more will come."""
    return seen.state == "done"


def rendered(
    environment: jinja2.Environment, content: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Digest and HTML of each part."""
    found = {}
    for name in PARTS:
        text = environment.get_template(f"live_{name}.html.j2").render(content)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        found[name] = {"digest": digest, "html": text}
    return found


def _named(row: ShownSchedule) -> str:
    own = row.ranked
    return f"schedule {own.schedule_id[:8]}, which ranks {own.rank} by now ({own.origin})"
