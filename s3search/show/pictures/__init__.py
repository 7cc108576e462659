"""Pictures of schedules and of what they make: for a file, and with letters for the terminal."""

from s3search.schedules.describing import describe_rule
from s3search.show.pictures.comparing import Comparison, compare_schedules
from s3search.show.pictures.figures import draw_comparison, draw_schedule, schedule_figure
from s3search.show.pictures.samples import (
    displayable,
    draw_samples,
    is_video,
    no_pictures,
    pictures_of,
    save_figure,
)
from s3search.show.pictures.tables import comparison_drawing, terminal_drawing
from s3search.show.pictures.words import TimeLine, time_lines

__all__ = [
    "Comparison",
    "TimeLine",
    "compare_schedules",
    "comparison_drawing",
    "describe_rule",
    "displayable",
    "draw_comparison",
    "draw_samples",
    "draw_schedule",
    "is_video",
    "no_pictures",
    "pictures_of",
    "save_figure",
    "schedule_figure",
    "terminal_drawing",
    "time_lines",
]
