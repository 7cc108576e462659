"""Every validated schedule of a study as one pandas table."""

import pandas as pd

from s3search.study.results.claims import relative
from s3search.study.results.frame import Scored

COLUMNS = (
    *("nfe", "name", "is_baseline", "is_winner", "distance", "low", "high", "standard_error"),
    *("times_winner", "times_low", "times_high", "second_distance", "second_low", "second_high"),
    *("search_distance", "search_n_images", "optimism", "n_images", "noise_seed", "extractor"),
    *("second_extractor", "reference_digest", "schedule_id"),
)


def validated_table(scored: list[Scored]) -> pd.DataFrame:
    """A row for each of `s3search.study.results.frame.validated`, the winner of its NFE, which is
    exported, first.

    ``low`` to ``high`` is the 95 % interval of ``distance`` over other noise; ``times_winner``
    is the ratio to the winner's on the same noise, with the bias of ``n_images`` images in both;
    ``second_*`` are of the second extractor.  What was not measured is missing.
    """
    winners: dict[int, Scored] = {}
    for row in scored:
        winners.setdefault(row.nfe, row)
    return pd.DataFrame([_row(row, winners[row.nfe]) for row in scored], columns=list(COLUMNS))


def _row(row: Scored, winner: Scored) -> dict[str, object]:
    low, high = row.held_out.interval or (None, None)
    second = row.second
    second_low, second_high = (second and second.interval) or (None, None)
    times_low, times_high = relative(row.held_out, winner.held_out)["ratio_95"] or (None, None)
    return {
        "nfe": row.nfe,
        "name": row.name,
        "is_baseline": row.is_baseline,
        "is_winner": row is winner,
        "distance": row.value,
        "low": low,
        "high": high,
        "standard_error": row.standard_error,
        "times_winner": row.value / winner.value if winner.value > 0.0 else None,
        "times_low": times_low,
        "times_high": times_high,
        "second_distance": None if second is None else second.value,
        "second_low": second_low,
        "second_high": second_high,
        "search_distance": row.search_value,
        "search_n_images": row.search_n_images,
        "optimism": row.optimism,
        "n_images": row.n_images,
        "noise_seed": row.noise_seed,
        "extractor": row.held_out.extractor,
        "second_extractor": None if second is None else second.extractor,
        "reference_digest": row.held_out.reference_digest,
        "schedule_id": row.schedule_id,
    }
