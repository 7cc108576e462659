"""What stock solvers do on other levels: where one is good, its other spacings come first."""

from collections.abc import Iterable, Sequence

from s3search.search.questions import Measurement
from s3search.search.trial import Origin, Trial

_BEST = 2  # stock solvers


def variants_first(measured: Iterable[Measurement], trials: Sequence[Trial]) -> list[Trial]:
    """All ``trials``, `variants_of_best` before the others, each in their order."""
    values = [(m.trial.origin, m.loss) for m in measured if m.loss is not None]
    return list(dict.fromkeys([*variants_of_best(values, trials), *trials]))


def variants_of_best(
    measured: Iterable[tuple[Origin, float]], trials: Sequence[Trial]
) -> list[Trial]:
    """Those of ``trials`` that are the two best stock solvers on other levels than their default
    ones; ``measured`` are losses of any schedules.
    """
    values: dict[str | None, float] = {}
    for origin, value in measured:
        if origin.is_stock:
            values[origin.solver] = min(value, values.get(origin.solver, value))
    has_variants = {trial.origin.solver for trial in trials if not trial.origin.is_stock}
    ranked = sorted((v, str(name)) for name, v in values.items() if name in has_variants)
    best = {name for _, name in ranked[:_BEST]}
    return [trial for trial in trials if trial.origin.solver in best and not trial.origin.is_stock]
