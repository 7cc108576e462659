"""Which measurements of a study are compared with fine solves, and what these cost."""

from s3search.search.questions import HELD_OUT_SOLVES, SOLVES, solve_calls
from s3search.search.solving import SolvedNoises
from s3search.study.file.config import StudyConfig
from s3search.study.file.metric_tables import MeasureTable


def noises_of(config: StudyConfig) -> SolvedNoises:
    """The noises of a study, none of which is solved yet."""
    second = config.validation.metric
    return SolvedNoises(
        by_all=any(map(_is_fine, (config.metric, *config.metric.guard))),
        by_validation=second is not None and _is_fine(second),
    )


def solves_foretold(config: StudyConfig) -> dict[str, int]:
    """Image-calls of a study's fine solves, each noise once, by kind; nothing where there are
    none.  Of a search that has finals these come on top.
    """
    noises, found = noises_of(config), {}
    if noises.by_all:
        found[SOLVES] = solve_calls(config.search.n_images)
    if noises.by_all or noises.by_validation:
        found[HELD_OUT_SOLVES] = solve_calls(config.held_out_images)
    return found


def _is_fine(table: MeasureTable) -> bool:
    return table.target == "fine"
