"""What a search found, as one figure: the winner, and its value among the others."""

import io
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from s3search.schedules.schedule import Schedule
from s3search.show.pictures.figures import draw_schedule_on
from s3search.study.metric_words import FRECHET, MetricWords

_FOUND, _PUBLISHED = "#2a6f97", "#999999"
_MOST_ROWS = 12
_NAME_CHARACTERS = 42


class NotebookFigure(Figure):
    """A figure that a notebook shows without `matplotlib.pyplot`."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()


def found_figure(
    schedule: Schedule, table: pd.DataFrame, title: str, words: MetricWords = FRECHET
) -> NotebookFigure:
    """The schedule above, the held-out values of all that were validated at its NFE below.

    ``table`` is `s3search.study.results.table.validated_table`; lines are 95 % intervals.
    """
    rows = table[table["nfe"] == schedule.nfe]
    rows = rows.sort_values(words.noun, ascending=words.is_minimized).head(_MOST_ROWS)
    heights = (4.6, 0.8 + 0.28 * len(rows))  # inches
    figure = NotebookFigure(figsize=(8.0, sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = parts
    draw_schedule_on(above, schedule, title)
    axes = below.subplots()
    for place, row in enumerate(rows.to_dict("records")):
        colour = _PUBLISHED if row["is_baseline"] else _FOUND
        axes.plot(row[words.noun], place, "o", color=colour)
        if not pd.isna(row["low"]):
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2.0)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows.to_dict("records")])
    axes.invert_yaxis()
    sizes = ", ".join(f"{n:,}" for n in rows["n_images"].unique())
    axes.set_xlabel(f"{words.noun} of {sizes} images on held-out noise, 95 % intervals")
    axes.grid(visible=True, axis="x", alpha=0.25)
    return figure


def _name(row: dict[Any, Any]) -> str:
    name = str(row["name"]) if row["is_baseline"] else f"found: {row['name']}"
    name = f"exported, {name}" if row["is_winner"] else name
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}..."
