"""What a study will cost, in lines that come before anything is spent."""

from collections.abc import Iterator

from s3search.search.stages import stage_words
from s3search.show.terminal.numbers import duration, rounded
from s3search.show.terminal.rungs import rung_lines
from s3search.study.results.forecast import CostForecast


def forecast_lines(found: CostForecast) -> Iterator[str]:
    """Network calls by stage, minutes where a batch was measured, and what else is to be known."""
    stages = [
        f"{stage_words(name).title} {rounded(n)}" for name, n in found.network_calls.items() if n
    ]
    if "search" not in found.network_calls:
        stages.insert(0, f"the search as many as {found.budget} allow")
    known = "about " if "search" in found.network_calls else ""
    yield (
        f"costs {known}{rounded(found.total)} network calls (images times calls): "
        f"{', '.join(stages)}"
    )
    real = f", and {found.real_images:,} real images, without a call" if found.real_images else ""
    yield (
        f"final check: {found.held_out_images:,} held-out images of each of at most "
        f"{found.validated} schedules{real}"
    )
    if found.spent:
        yield f"of these {rounded(found.spent)} network calls are made already"
    if found.seconds is not None:
        each = [
            f"{stage_words(name).title} {duration(60 * own)}"
            for name, own in found.minutes.items()
            if own
        ]
        yield (
            f"about {duration(60 * sum(found.minutes.values()))} on {found.n_workers} "
            f"{'worker' if found.n_workers == 1 else 'workers'}, by a measured batch: "
            f"{', '.join(each)}"
        )
    yield from found.notes
    yield from rung_lines(found.rungs)
