"""What the page of one schedule shows."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from s3search.schedules.schedule import Schedule
from s3search.show.dashboard.artifacts import samples_of
from s3search.show.dashboard.rows import data_url
from s3search.show.dashboard.views import measurements
from s3search.show.pictures import schedule_figure, time_lines
from s3search.show.report.svg import svg_of
from s3search.study.metric_words import MetricWords

_WIDEST = 1200  # pixels of samples


def shown_of(
    url: str,
    artifacts: Path | None,
    schedule: Schedule,
    remarks_of: Callable[[str], Mapping[str, str]],
) -> dict[str, Any]:
    """What the template asks for; matplotlib draws.  ``remarks_of`` gives a study's, by
    schedule id.
    """
    measured = measurements(url, schedule.id)
    studies = dict.fromkeys(row["study"] for row in measured)
    drawing = svg_of(
        lambda: schedule_figure(schedule),
        "schedule",
        f"Drawing of schedule {schedule.id[:8]}; the table below has its steps.",
    )
    nouns = {MetricWords(kind=row["metric"]).noun for row in measured if row["metric"]}
    is_score = "score" in nouns
    remarks = {name: remarks_of(name).get(schedule.id) for name in studies}
    return {
        "schedule": schedule,
        "drawing": Markup(drawing),
        "lines": time_lines(schedule),
        "measured": measured,
        "noun": " or ".join(sorted(nouns)) or "distance",
        "judged": "judged by" if is_score else "in the features of",
        "remarks": {name: remark for name, remark in remarks.items() if remark},
        "samples": [data_url(each, _WIDEST) for each in samples_of(artifacts, studies, schedule)],
    }


def picture_of(schedule: Schedule) -> bytes:
    """Its drawing as a PNG; matplotlib draws."""
    buffer = io.BytesIO()
    schedule_figure(schedule).savefig(buffer, dpi=130, format="png")
    return buffer.getvalue()
