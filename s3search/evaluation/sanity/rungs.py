"""Which parts of a search work for a model and metric, which do not, why, and what would do.

Nothing here makes a measurement wrong.  A rung that has nothing to say costs a search some of its
gain, and whoever waits for it should know.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from s3search.evaluation.metric import Metric
from s3search.evaluation.record import Finding, Status
from s3search.evaluation.views import Scorer
from s3search.search.ladder import LadderRung

GRADIENT = "gradient"  # the check that only a polish needs
SECOND, REAL = "second metric", "real images"
GUARDS = "guards"


class Loaded(Protocol):
    """What a worker has loaded, as far as the rungs need it."""

    denoiser: Any

    @property
    def reference_images(self) -> Tensor | None:
        """Real ones (N, ...)."""

    @property
    def gradient_problem(self) -> str | None:
        """Why the metric has no gradient in the states of a schedule; None where it has."""

    @property
    def metric(self) -> Metric:
        """What decides."""

    @property
    def guards(self) -> Sequence[Metric]:
        """What may not get worse."""

    @property
    def second(self) -> Metric | None:
        """What only looks at the end."""


def rungs_of(loaded: Loaded) -> Iterator[Finding]:
    """A finding for each part of a search, which works or is absent."""
    images, shape = loaded.reference_images, tuple(loaded.denoiser.sample_shape)
    without_images = None
    if images is None:
        without_images = (
            "there are no real images at hand; name a function or folder of images in [reference]"
        )
    elif tuple(images.shape[1:]) != shape:
        without_images = (
            f"real images are {tuple(images.shape[1:])} and the model's states {shape}, as those "
            "of latents are; nothing but images of the states' shape would do"
        )
    yield _finding(LadderRung.GAUSSIAN, "a closed form scores schedules", without_images)
    is_score = isinstance(loaded.metric.view, Scorer)
    without_features = (
        "a score has no features, by which a mixture's images could be compared with real ones"
    )
    why = without_features if is_score else without_images
    yield _finding(LadderRung.MIXTURE, "a mixture of Gaussians scores schedules", why)
    yield _finding(LadderRung.RACE, "schedules that are poor after a few images stop there", None)
    yield _gradient(loaded)
    what = "" if loaded.second is None else f"{loaded.second.view.name} sees the final images too"
    why = "none is named; [validation.metric] tells what this one alone sees"
    yield _finding(SECOND, what, None if loaded.second is not None else why)
    why = "a score is of what was asked for, which nobody did of real images"
    if not is_score:
        why = without_images if images is None else None
    yield _finding(REAL, "draws of them tell the best to be expected", why)
    if loaded.guards:
        names = ", ".join(guard.view.name for guard in loaded.guards)
        yield _finding(GUARDS, f"{names} may not get worse", None)


def _gradient(loaded: Loaded) -> Finding:
    problem = loaded.gradient_problem
    if problem is None:
        said = "the best schedules follow the metric's gradient"
        return Finding(check=GRADIENT, status=Status.OK, message=said)
    message = (
        f"the best schedules are fine-tuned without the gradient, by differences, which reach "
        f"less with as many calls: {problem}"
    )
    return Finding(check=GRADIENT, status=Status.WARNING, message=message)


def _finding(check: str, works: str, why_not: str | None) -> Finding:
    status = Status.OK if why_not is None else Status.ABSENT
    return Finding(check=str(check), status=status, message=why_not or works)
