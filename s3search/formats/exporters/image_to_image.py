"""What a schedule loses where a run begins at one of its inner levels."""

from s3search.formats.exporters.measured import tail_loss
from s3search.formats.exporters.report import Approximation
from s3search.formats.exporters.sigma_table import inner_tails
from s3search.schedules.schedule import Schedule


def image_to_image_losses(schedule: Schedule) -> tuple[Approximation, ...]:
    """One sentence for each inner level whose steps miss calls that were made before it."""
    found = []
    for rest in inner_tails(schedule):
        if not rest.lowered:
            continue
        loss = tail_loss(schedule, rest)
        t, n = rest.schedule.times[0], len(rest.lowered)
        found.append(
            Approximation(
                what=f"image-to-image from t = {t:.6g} ({rest.schedule.nfe} calls): {n} of its "
                f"rules look back further and become first order ({', '.join(rest.lowered)}); "
                f"the distance to the exact images goes from {100 * loss.with_them:.3g} % to "
                f"{100 * loss.without:.3g} %, and the images change by",
                measured=100 * loss.change,
                unit="% of Gaussian images",
            )
        )
    return tuple(found)
