"""Schedules beside each other: their noise levels, steps and samples, and which one is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from s3search.errors import StudyConflict
from s3search.schedules.schedule import Schedule
from s3search.search.trial import Origin
from s3search.show.dashboard.artifacts import samples_of
from s3search.show.dashboard.rows import data_url
from s3search.show.pictures import TimeLine, time_lines
from s3search.show.pictures.comparing import differing_steps
from s3search.show.report.graphs import levels_figure
from s3search.show.report.svg import SERIES, svg_of
from s3search.study.database.store import StudyStore
from s3search.study.metric_words import MetricWords
from s3search.study.results.claims import relative
from s3search.study.results.exported import ranked, remarks_of
from s3search.study.results.frame import Scored, validated

MOST = len(SERIES)
"""Schedules that are compared at once: as many as there are colours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the schedules that are compared."""

    schedule: Schedule
    name: str  # where it comes from
    remark: str  # whether it is exported
    samples: str | None  # data:image/...
    found: float | None  # on the search's own noise
    held_out: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """What the page says; all verdicts are against the first."""

    sides: tuple[Side, ...]
    verdicts: tuple[str, ...]
    drawing: Markup
    steps: tuple[tuple[bool, tuple[TimeLine | None, ...]], ...]  # differs; a line of each
    words: MetricWords


def side_by_side(
    store: StudyStore, frame: pd.DataFrame, ids: Sequence[str], artifacts: Path | None
) -> SideBySide:
    """These schedules of a study, by the beginnings of their ids; raises `StudyConflict` for fewer
    than two, too many, or what the study has not measured.
    """
    if not 2 <= len(ids) <= MOST:
        raise StudyConflict(f"{len(ids)} schedules are ticked; tick 2 to {MOST} to compare them")
    known = dict(zip(frame["schedule_id"], frame["origin"], strict=True))
    whole = [_whole(each, known) for each in ids]
    values = ranked(frame).set_index("schedule_id")["value"].to_dict()
    scored = {row.schedule_id: row for row in validated(frame, store.config)}
    remarks = remarks_of(store, frame)
    sides = tuple(
        Side(
            schedule=(schedule := store.schedule(each)),
            name=Origin.of_text(known[each]).name,
            remark=remarks.get(each, ""),
            samples=next(map(data_url, samples_of(artifacts, [store.name], schedule)), None),
            found=values.get(each),
            held_out=scored[each].value if each in scored else None,
        )
        for each in whole
    )
    schedules = [side.schedule for side in sides]
    names = [each.id[:8] for each in schedules]
    drawing = svg_of(
        lambda: levels_figure(schedules, names),
        "levels",
        f"Noise levels over the steps of {', '.join(names)}; the table has the numbers.",
    )
    differing = {i for other in schedules[1:] for i in differing_steps(schedules[0], other)}
    lines = zip_longest(*map(time_lines, schedules))
    return SideBySide(
        sides=sides,
        verdicts=tuple(_verdict(sides[0], other, scored) for other in sides[1:]),
        drawing=Markup(drawing),
        steps=tuple((i in differing, own) for i, own in enumerate(lines)),
        words=MetricWords.of(store.config.metric),
    )


def _whole(prefix: str, known: Mapping[str, str]) -> str:
    found = [each for each in known if each.startswith(prefix)]
    if len(found) != 1:
        count = "several schedules" if found else "no schedule"
        raise StudyConflict(f"this study has measured {count} whose id begins with {prefix!r}")
    return found[0]


def _verdict(first: Side, other: Side, scored: Mapping[str, Scored]) -> str:
    """Which of the two is better, nearer to the real images, as far as that is known."""
    a, b = first.schedule.id[:8], other.schedule.id[:8]
    if first.schedule.nfe != other.schedule.nfe:
        return f"{a} and {b} make {first.schedule.nfe} and {other.schedule.nfe} network calls."
    one, two = scored.get(first.schedule.id), scored.get(other.schedule.id)
    if one is None or two is None:
        return (
            f"Nothing is decided between {a} and {b}: they were not both measured on held-out "
            "noise, and the search's own only ranks."
        )
    found = relative(two.held_out, one.held_out)
    between = found["difference_95"]
    if between is None:
        said, interval = "without an interval nothing is decided", ""
    else:
        low, high = between
        words = one.held_out.words
        said = f"{a if words.direction.loss(low) > 0.0 else b} is {words.better}"
        said = "noise may decide" if low <= 0.0 <= high else said
        said = "they make the same images" if low == high == 0.0 else said
        interval = f" (95 % {low:+.4f} to {high:+.4f})"
    return (
        f"{a} against {b}: {said}. On {one.n_images:,} images of the same held-out noise "
        f"{one.value:.4f} against {two.value:.4f}, difference {found['difference']:+.4f}"
        f"{interval}."
    )
