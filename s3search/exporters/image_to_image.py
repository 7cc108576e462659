"""What a schedule loses where a run begins at one of its inner levels."""

from s3search.exporters.measured import tail_errors
from s3search.exporters.report import Approximation
from s3search.exporters.sigma_table import inner_tails
from s3search.schedules.schedule import Schedule


def image_to_image_losses(schedule: Schedule) -> tuple[Approximation, ...]:
    """One sentence for each inner level whose steps miss calls that were made before it."""
    found = []
    for rest in inner_tails(schedule):
        if not rest.lowered:
            continue
        begun, whole = tail_errors(schedule, rest)
        t, n = rest.schedule.times[0], len(rest.lowered)
        found.append(
            Approximation(
                what=f"image-to-image from t = {t:.6g} ({rest.schedule.nfe} calls): {n} of its "
                f"rules look back further and become first order ({', '.join(rest.lowered)}); "
                f"distance to the exact images with the calls before {100 * whole:.3g} %, without",
                measured=100 * begun,
                unit="% of Gaussian images",
            )
        )
    return tuple(found)
