"""What every update rule sees and answers.

    history   the evaluated points so far, oldest first; addressed by negative index, -1 is the
              newest
    to        the level (t, alpha, sigma, lam) of the state being computed
    h         lam_to - lam_start > 0

A rule is a frozen pydantic model: its parameters, as they stand in the JSON.  `problem` says what
makes it impossible where it stands, `next_state` computes the new state as a linear form.  The
rest is what others ask it: a search, pictures, predictors and summaries know a rule by these
answers alone, and need not be told what is usual.  What a rule says that a search is to draw
stands in `s3search.rules.searched`.

Fields named ``start``, ``previous``, ``point`` and ``points`` hold points of the history.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules.ems import EmsNodes, EmsStatistics
from s3search.rules.linear_form import LinearForm, combine
from s3search.rules.points import Level, Part, Point, Prediction
from s3search.rules.relaxation import Relaxation

INVARIANT_TOLERANCE = 1e-9
"""What a row may lose of a constant noise or image, of its own absolute sum; rounding leaves 1e-13
even at order 4."""

MAX_ORDER = 5
"""The highest order of a Taylor step: a corrector of a fourth-order predictor has one more."""

_POINT_FIELDS = ("start", "previous", "point", "points")


class Objection(NamedTuple):
    """Why a rule cannot be used where it stands: the field at fault and a sentence."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class TaylorForm:
    """A Taylor step whose derivatives look at all its points; the first one may be rescaled."""

    prediction: Prediction
    order: int
    relaxation: Relaxation | None = None


class RuleModel(Part):
    """Base of all rules."""

    rule: str

    family: ClassVar[str] = "adams"
    """The name in ``[space] families`` under which children may inherit it; by default that of the
    steps along slopes."""

    # -- what it computes --

    def problem(self, levels: Sequence[Level], to: Level) -> Objection | None:
        """What makes this rule impossible after points at ``levels``; None when nothing does."""
        raise NotImplementedError

    def next_state(self, history: Sequence[Point], to: Level) -> LinearForm:
        """The state at ``to`` as a linear form; every rule without a `problem` has one."""
        raise NotImplementedError

    @property
    def needs_ems(self) -> bool:
        """Whether the rule is computed with EMS statistics, by `next_state_with`.

        Its rows then have tensors for weights and do not obey the invariants of `Plan`.
        """
        return False

    def is_covered(self, nodes: EmsNodes, past: Sequence[Level], to: Level) -> bool:
        """Whether statistics at ``nodes`` have what a rule that needs them looks at."""
        raise NotImplementedError

    def next_state_with(
        self, ems: EmsStatistics, history: Sequence[Point], to: Level
    ) -> LinearForm:
        """The state at ``to`` of a rule that needs EMS statistics."""
        raise NotImplementedError

    @property
    def carries_constants(self) -> bool:
        """Whether its rows carry a constant noise and image exactly; a plan checks those that
        do.
        """
        return True

    @property
    def draws_noise(self) -> bool:
        """Whether its rows hold fresh noise of their own, as those of an SDE's integrator do."""
        return False

    @property
    def mixes_predictions(self) -> bool:
        """Whether it extrapolates a mixture of D and eps, which a network time tells apart."""
        return False

    # -- what it is like --

    @property
    def n_points(self) -> int:
        """How many predictions the step combines, usually its order."""
        raise NotImplementedError

    @property
    def counted_order(self) -> int:
        """The order by which a summary of many steps counts it."""
        return self.n_points

    @property
    def extrapolated(self) -> Prediction | None:
        """The prediction that it extrapolates; None for slopes."""
        return None

    @property
    def title(self) -> str:
        """The name of the rule in pictures."""
        return type(self).__name__

    @property
    def extent(self) -> str:
        """How far back it reaches, in words."""
        return f"order {self.n_points}"

    @property
    def details(self) -> str:
        """What else is to be said of it, in words."""
        return ""

    def nearest_taylor(self) -> TaylorForm:
        """The Taylor step that stands in for it where it is not possible."""
        is_data = self.extrapolated is Prediction.DATA
        prediction = Prediction.DATA if is_data else Prediction.NOISE
        return TaylorForm(prediction, min(self.n_points, MAX_ORDER))

    def corrector(self) -> "RuleModel | None":
        """The rule that recomputes its step once the new point is evaluated; None: the trapezoid
        rule from where the step began.
        """
        return None

    # -- what it becomes elsewhere --

    @property
    def begins_at(self) -> int:
        """The point whose state it begins with."""
        return int(getattr(self, "start", -1))

    @property
    def is_inheritable(self) -> bool:
        """Whether its `problem` tells if it fits other levels than those it was made for."""
        return True

    def renumbered(self, moved: Callable[[int], int]) -> Self:
        """This step along a history in which point p has become point ``moved(p)``."""

        def walk(value: Any, key: str) -> Any:
            match value:
                case dict():
                    return {name: walk(inner, name) for name, inner in value.items()}
                case list() | tuple():
                    return tuple(walk(inner, key) for inner in value)
                case int() if key in _POINT_FIELDS:
                    return moved(value)
            return value

        return type(self).model_validate(walk(self.model_dump(), ""))

    def scaled(self, points: Sequence[float], to: float) -> Self:
        """The step between states that are multiplied by ``points`` and ``to``."""
        return self


def missing_point(field: str, indices: Sequence[int], n_points: int) -> Objection | None:
    """The problem of addressing a point that does not exist, or one twice."""
    for index in indices:
        if not -n_points <= index <= -1:
            return Objection(field, f"point {index} does not exist, the history holds {n_points}")
    if len(set(indices)) != len(indices):
        return Objection(field, f"points {list(indices)} name one point twice")
    return None


def missing_points(start: int, points: Sequence[int], n_points: int) -> Objection | None:
    """The problem of a start or of ``points`` that do not exist."""
    found = missing_point("start", (start,), n_points)
    return found or missing_point("points", points, n_points)


def first_order(point: Point, prediction: Prediction, to: Level) -> LinearForm:
    """The exponential Euler step from ``point`` (DDIM), for either prediction.

    Data: (sigma_t / sigma_s) x + (alpha_t - sigma_t alpha_s / sigma_s) D.  Noise: (alpha_t /
    alpha_s) x - sigma_t (e^h - 1) eps, rearranged with eps = (x' - alpha_s D) / sigma_s, x' the
    state the network saw, into the data form at x' plus
    (alpha_t / alpha_s)(x - x').  Neither divides by alpha_s when x = x', so a flow may start at
    alpha = 0; neither needs h, so the target may be clean (sigma_t = 0).

    Where the network time is another one, D and eps belong to its level, not to s, and the two
    formulas are no longer the same map: they are taken as they stand.
    """
    _, alpha_s, sigma_s, _ = point.level
    scale = to.sigma / sigma_s
    if point.called_at is not None:
        if prediction is Prediction.DATA:
            return combine(((scale, point.state), (to.alpha - scale * alpha_s, point.data)))
        ratio = to.alpha / alpha_s
        noise = point.predicted(Prediction.NOISE)
        return combine(((ratio, point.state), (to.sigma - ratio * sigma_s, noise)))
    step = combine(((scale, point.evaluated_at), (to.alpha - scale * alpha_s, point.data)))
    if point.state is point.evaluated_at:
        return step
    factor = scale if prediction is Prediction.DATA else to.alpha / alpha_s
    return combine(((1.0, step), (factor, point.state), (-factor, point.evaluated_at)))


def endless_step(field: str, start: Level, to: Level) -> Objection | None:
    """The problem of a step above first order whose h is infinite."""
    if math.isfinite(to.lam - start.lam):
        return None
    end = "the clean end (sigma = 0)" if to.sigma == 0.0 else "pure noise (alpha = 0)"
    return Objection(
        field, f"has no value above order 1 for a step that touches {end}; use order 1"
    )


def slopes_problem(
    start: int, points: tuple[int, ...], levels: Sequence[Level]
) -> Objection | None:
    """What makes a step along the slopes at ``points`` impossible: one is missing, or at pure
    noise where the step is not Euler's.
    """
    found = missing_points(start, points, len(levels))
    if found is not None:
        return found
    used = [levels[p] for p in (start, *points)]
    return noisy_point("points", used, is_euler=points == (start,))


def noisy_point(field: str, used: Sequence[Level], *, is_euler: bool) -> Objection | None:
    """The problem of a step above Euler's that looks at pure noise, where rho is infinite."""
    if is_euler or all(at.alpha > 0.0 for at in used):
        return None
    return Objection(field, "has no value from pure noise (alpha = 0); use Euler's step there")


def along(start: Point, mean: Iterable[tuple[float, LinearForm]], to: Level) -> LinearForm:
    """The state at ``to`` from ``start`` along the weighted slopes ``mean``."""
    _, alpha, sigma, _ = start.level
    run = to.sigma - to.alpha * (sigma / alpha)  # alpha_t (rho_t - rho_s)
    terms = [(to.alpha / alpha, start.state)]
    return combine(terms + [(run * weight, slope) for weight, slope in mean])


def refuse_pure_noise(process: NoiseProcess) -> None:
    """Raises `InvalidSchedule` where the noisy end has no finite sigma / alpha."""
    if process.alpha(process.time_range[1]) == 0.0:
        raise InvalidSchedule(
            "this solver works in sigma / alpha, which is infinite where a flow starts"
        )
