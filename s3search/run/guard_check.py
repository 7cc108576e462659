"""Whether the guards of a study have limits: a multiple of a value that may be 0 is none.

A kernel distance has no bias, and is about 0 for images like the real ones; a score may have any
sign.  Where the value of a published solver is not told from 0 by as many images as the search
makes, its 1.1 times is not told from it either, and noise decides what keeps the guard.  This
takes one evaluation, of studies with such guards alone.
"""

from collections.abc import Iterator

from s3search.cluster.asking import Pool, measured_by
from s3search.evaluation.record import Finding, Status
from s3search.evaluation.sanity.checking import SEED
from s3search.metrics.intervals import interval_of
from s3search.processes import NoiseProcess
from s3search.schedules.published import dpmpp_2m
from s3search.search.questions import Rung, measure
from s3search.study.file.config import StudyConfig

LIMITS = "limits of guards"
"""The check's name."""

_MAY_BE_0 = ("kernel", "score")  # kinds; what others give has a bias above 0
_NOISE = 4.0  # standard errors that a limit in the metric's own unit may well allow


def guard_findings(config: StudyConfig, process: NoiseProcess, pool: Pool) -> Iterator[Finding]:
    """A finding for every guard that is a multiple of a value which may be 0: an error where it
    is not told from 0.  Nothing where the images cannot be made, which the search will say.
    """
    tables = list(enumerate(config.metric.guard))
    if not any(table.kind in _MAY_BE_0 and table.worse_by is None for _, table in tables):
        return
    nfe, n_images = config.space.nfe[0], config.search.n_images
    schedule = dpmpp_2m(process, nfe=nfe)
    question = measure(schedule, rung=Rung.USER, n_images=n_images, noise_seed=SEED)
    found = next(iter(measured_by(pool, [question])), None)
    if found is None or found.error is not None:
        return
    for (i, table), guard, value, error in zip(
        tables, config.guards, found.guards, found.guard_errors, strict=True
    ):
        between = interval_of(value, error, None)
        if table.worse_by is not None or between is None or error is None:
            continue
        said = (
            f"{guard.name} gives DPM-Solver++(2M) with {nfe} calls {value:.4g} "
            f"(95 % {between[0]:.4g} to {between[1]:.4g}) of {n_images:,} images"
        )
        if differs_from_0(table.kind, between):
            yield Finding(check=LIMITS, status=Status.OK, message=said)
            continue
        key = "at_most" if table.at_most is not None else "at_least"
        message = (
            f"metric.guard[{i}].{key}: {said}, and so many times what may be 0 is no limit; say "
            f"by how much it may be worse, as worse_by = {_NOISE * error:.2g}, or make more images"
        )
        yield Finding(check=LIMITS, status=Status.ERROR, message=message)


def differs_from_0(kind: str, between: tuple[float, float]) -> bool:
    """Whether a value with this 95 % interval has a sign; a kernel distance is 0 at least but for
    noise, so one that lies below is not told from 0.
    """
    return between[0] > 0.0 or (kind == "score" and between[1] < 0.0)
