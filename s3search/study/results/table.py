"""Every validated schedule of a study as one pandas table."""

import pandas as pd

from s3search.study.metric_words import FRECHET, MetricWords
from s3search.study.results.claims import relative
from s3search.study.results.frame import Scored


def columns_of(first: str = "distance", second: str = "distance") -> tuple[str, ...]:
    """The columns, by what numbers of the metric and of the second one are called."""
    return (
        *("nfe", "name", "is_baseline", "is_winner", first, "low", "high", "standard_error"),
        *("times_winner", "times_low", "times_high", f"second_{second}"),
        *("second_low", "second_high", f"search_{first}", "search_n_images", "optimism"),
        *("n_images", "noise_seed", "extractor", "second_extractor", "reference_digest"),
        "schedule_id",
    )


COLUMNS = columns_of()


def validated_table(scored: list[Scored], words: MetricWords = FRECHET) -> pd.DataFrame:
    """A row for each of `s3search.study.results.frame.validated`, the winner of its NFE, which is
    exported, first; ``words`` are the metric's.

    ``low`` to ``high`` is the 95 % interval of ``distance`` over other noise; ``times_winner``
    is the ratio to the winner's on the same noise, with the bias of ``n_images`` images in both;
    ``second_*`` are of the second extractor.  By a score, ``score`` and ``search_score`` stand for
    ``distance`` and ``search_distance``; ``second_score`` where the second metric is one.  What
    was not measured is missing, and so is the ratio of what is maximised.  Where there are guards,
    ``breaks`` names those that a schedule breaks, beside the best published one.
    """
    winners: dict[int, Scored] = {}
    for row in scored:
        winners.setdefault(row.nfe, row)
    second = next((row.second.words.noun for row in scored if row.second), words.noun)
    names = columns_of(words.noun, second)
    rows = [_row(row, winners[row.nfe], words.noun, second) for row in scored]
    table = pd.DataFrame(rows, columns=list(names))
    if any(row.guards for row in scored):
        table["breaks"] = [", ".join(row.broken) for row in scored]
    return table


def _row(row: Scored, winner: Scored, first_noun: str, second_noun: str) -> dict[str, object]:
    low, high = row.held_out.interval or (None, None)
    second = row.second
    second_low, second_high = (second and second.interval) or (None, None)
    against = relative(row.held_out, winner.held_out)
    times_low, times_high = against["ratio_95"] or (None, None)
    return {
        "nfe": row.nfe,
        "name": row.name,
        "is_baseline": row.is_baseline,
        "is_winner": row is winner,
        first_noun: row.value,
        "low": low,
        "high": high,
        "standard_error": row.standard_error,
        "times_winner": against["ratio"],
        "times_low": times_low,
        "times_high": times_high,
        f"second_{second_noun}": None if second is None else second.value,
        "second_low": second_low,
        "second_high": second_high,
        f"search_{first_noun}": row.search_value,
        "search_n_images": row.search_n_images,
        "optimism": row.optimism,
        "n_images": row.n_images,
        "noise_seed": row.noise_seed,
        "extractor": row.held_out.extractor,
        "second_extractor": None if second is None else second.extractor,
        "reference_digest": row.held_out.reference_digest,
        "schedule_id": row.schedule_id,
    }
