"""How many images a validation makes of each schedule, where the study file does not say."""

_MOST = 10_000  # what distances are usually reported of
_PUBLISHED = 20  # schedules beside the finalists: the stock ones, one of every published solver
_WITHOUT_COUNT = 10  # times the images of an evaluation, where the budget is time


def held_out_images(
    n_images: int, *, evaluations: float | None, finalists: int, baselines: bool
) -> int:
    """Images of each schedule such that the validation costs about what the search did.

    ``evaluations`` of ``n_images`` are the budget of one number of network calls, None where that
    is time.  Twice ``n_images`` are the least, and 10,000 or these the most; a round number.
    """
    schedules = finalists + (_PUBLISHED if baselines else 0)
    times = _WITHOUT_COUNT if evaluations is None else evaluations / schedules
    least = 2 * n_images
    found = int(min(max(times * n_images, least), max(_MOST, least)))
    unit = int(10 ** max(0, len(str(found)) - 2))
    return max(least, found // unit * unit)
