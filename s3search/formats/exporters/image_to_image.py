"""What a schedule loses where a run begins at one of its inner levels."""

from s3search.formats.exporters.measured import inner_start_loss
from s3search.formats.exporters.report import Approximation
from s3search.formats.exporters.sigma_table import inner_starts
from s3search.schedules.schedule import Schedule


def image_to_image_losses(schedule: Schedule) -> tuple[Approximation, ...]:
    """One sentence for each inner level whose steps miss calls that were made before it."""
    found = []
    for inner in inner_starts(schedule):
        if not inner.lowered:
            continue
        loss = inner_start_loss(schedule, inner)
        t, n = inner.schedule.times[0], len(inner.lowered)
        distance = (
            "from equal noise"
            if schedule.is_stochastic
            else "the distance to the exact images goes from "
            f"{100 * loss.with_them:.3g} % to {100 * loss.without:.3g} %, and"
        )
        found.append(
            Approximation(
                what=f"image-to-image from t = {t:.6g} ({inner.schedule.nfe} calls): {n} of its "
                f"rules look back further and become first order ({', '.join(inner.lowered)}); "
                f"{distance} the images change by",
                measured=100 * loss.change,
                unit="% of Gaussian images",
            )
        )
    return tuple(found)
