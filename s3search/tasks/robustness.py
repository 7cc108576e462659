"""What schedules are worth under changes of the model: what `s3search tools robustness` does.

A variant is a study file with a change (another guidance scale, a fine-tuned checkpoint, another
file altogether) and a noise seed.  Under each, the given schedules stand beside the best published
solver of their number of calls.  That one is chosen anew for every variant: all solvers at all
spacings are measured with few images on a noise seed of their own, the best `FINALISTS` of them in
full on the schedules' noise, and the best of these counts.  A choice among results is kind to the
published side, so what holds, holds against that.

A schedule holds if the paired 95 % interval of its distance over the published one's lies below 1;
by a score that is maximised, if that of its score less the published one's lies above 0.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from s3search.cluster.asking import Pool, described, measured_by
from s3search.errors import EvaluationFailed, InvalidSchedule
from s3search.evaluation.record import Description, statistics_problem
from s3search.metrics.intervals import difference_interval, interval, ratio_interval
from s3search.run.baselines import known_baselines
from s3search.run.launching import workers
from s3search.schedules.published import End, EndRule
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Measure, Measurement, Rung, measure
from s3search.search.trial import distinct
from s3search.study.file.config import StudyConfig
from s3search.study.metric_words import MetricWords

FINALISTS = 3
_ENDS = (End(rule=EndRule.STOP), End(rule=EndRule.DENOISE))
_LEAST_IMAGES, _SHARE = 100, 20  # of a variant's images, that a published solver is chosen by
_CHOICE_SEED = 2**66  # of the noise that chooses; no other seed is so large

Interval = tuple[float, float]
Report = Callable[[str], None]


class Held(StrEnum):
    """Whether a schedule beats the best published solver, by the paired interval."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVariant:
    """One change of the model, and the noise it is looked at with."""

    label: str
    config: StudyConfig
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A schedule and the name that its file has."""

    name: str
    schedule: Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    name: str
    measured: Measurement
    n_tried: int


def robustness(
    schedules: Sequence[Carried],
    variants: Sequence[ModelVariant],
    *,
    n_images: int,
    report: Report,
) -> dict[str, Any]:
    """Every schedule under every variant, in plain data.

    Raises `InvalidSchedule` for a schedule that a variant's model cannot run, before measuring
    anything there, and `EvaluationFailed` where no published solver can be measured.
    """
    rows: list[dict[str, Any]] = []
    for variant in variants:
        report(f"{variant.label}, noise seed {variant.seed}")
        with workers(variant.config) as pool:
            rows += _measured(pool, schedules, variant, n_images)
    return {
        "n_images": n_images,
        "rows": rows,
        "held": [_summary(each, rows) for each in schedules],
    }


def _measured(
    pool: Pool, schedules: Sequence[Carried], variant: ModelVariant, n_images: int
) -> list[dict[str, Any]]:
    description = described(pool)
    for each in schedules:
        _check(each, variant, description)
    published = {
        nfe: _best_published(pool, description, nfe, variant, n_images)
        for nfe in sorted({each.schedule.nfe for each in schedules})
    }
    found = measured_by(
        pool, [_question(each.schedule, n_images, variant.seed) for each in schedules]
    )
    return [
        _row(each, variant, measured, published[each.schedule.nfe])
        for each, measured in zip(schedules, found, strict=True)
    ]


def _check(each: Carried, variant: ModelVariant, description: Description) -> None:
    own, process = each.schedule.process, description.process
    if not own.same_levels(process):
        raise InvalidSchedule(
            f"{each.name}: process: this is a schedule for {own!r}, the model of "
            f"{variant.label!r} has {process!r}; `s3search tools retime` moves it there"
        )
    problem = statistics_problem(each.schedule, description.ems)
    if problem is None and _guides_itself(each.schedule) and not description.takes_guidance:
        problem = (
            "model_patch.guidance_scale: the model has no null condition to be guided away "
            "from; remove the key from the schedule"
        )
    if problem is not None:
        raise InvalidSchedule(f"{each.name}: {problem} (variant {variant.label!r})")


def _guides_itself(schedule: Schedule) -> bool:
    patch = schedule.model_patch
    return patch is not None and patch.guidance_scale is not None


def _best_published(
    pool: Pool, description: Description, nfe: int, variant: ModelVariant, n_images: int
) -> _Published:
    """The best of all in full, of the best few by few images on other noise."""
    baselines = known_baselines(description.own_sampler, description.process, nfe, ends=_ENDS)
    known = distinct([*baselines.stock, *baselines.published])
    n_few = min(n_images, max(_LEAST_IMAGES, n_images // _SHARE))
    seed = _CHOICE_SEED + variant.seed
    few = measured_by(
        pool,
        [Measure(trial=trial, rung=Rung.USER, n_images=n_few, noise_seed=seed) for trial in known],
    )
    order = sorted(range(len(few)), key=lambda i: _loss(few[i]))
    chosen = [known[i] for i in order if math.isfinite(_loss(few[i]))][:FINALISTS]
    whole = measured_by(
        pool, [_question(trial.schedule, n_images, variant.seed) for trial in chosen]
    )
    ranked = sorted(zip(chosen, whole, strict=True), key=lambda pair: _loss(pair[1]))
    for trial, measured in ranked[:1]:
        if measured.value is not None:
            label = trial.origin.label
            return _Published(name=label, measured=measured, n_tried=len(known))
    raise EvaluationFailed(
        f"{variant.label}: none of {len(known)} published solvers of {nfe} calls could be "
        f"measured{''.join(f' ({each.error})' for each in few[:1] if each.error)}"
    )


def _question(schedule: Schedule, n_images: int, seed: int) -> Measure:
    """On held-out conditions, with replicates for the intervals."""
    return measure(schedule, rung=Rung.VALIDATION, n_images=n_images, noise_seed=seed)


def _loss(found: Measurement) -> float:
    return math.inf if found.loss is None else found.loss


def _row(
    each: Carried,
    variant: ModelVariant,
    found: Measurement,
    published: _Published,
) -> dict[str, Any]:
    own, against = found.value, published.measured
    best = against.value
    assert best is not None
    words = MetricWords(kind=str(against.metric), direction=against.direction)
    difference_95 = ratio_95 = None
    if found.replicates is not None and against.replicates is not None:
        pair = found.replicates, against.replicates
        difference_95 = difference_interval(*pair)
        ratio_95 = ratio_interval(*pair) if words.is_minimized else None
    return {
        "variant": variant.label,
        "noise_seed": variant.seed,
        "schedule": each.name,
        "schedule_id": each.schedule.id,
        "nfe": each.schedule.nfe,
        "guides_itself": _guides_itself(each.schedule),
        "metric": words.kind,
        "direction": words.direction.value,
        "extractor": against.extractor,
        "reference_digest": against.reference_digest,
        "model_fingerprint": against.model_fingerprint,
        "value": own,
        "interval_95": _interval(found),
        "error": found.error,
        "published": {
            "name": published.name,
            "schedule_id": against.trial.id,
            "value": best,
            "interval_95": _interval(against),
            "n_tried": published.n_tried,
        },
        "difference": None if own is None else own - best,
        "difference_95": difference_95,
        "ratio": own / best if own is not None and best > 0.0 and words.is_minimized else None,
        "ratio_95": ratio_95,
        "verdict": _verdict(difference_95, ratio_95, words, has_failed=own is None).value,
    }


def _interval(measured: Measurement) -> tuple[float, float] | None:
    return None if measured.replicates is None else interval(measured.replicates)


def _verdict(
    difference_95: Interval | None,
    ratio_95: Interval | None,
    words: MetricWords,
    *,
    has_failed: bool,
) -> Held:
    """By the ratio; by the difference of what is maximised, whose zero means nothing."""
    if has_failed:
        return Held.FAILS
    between, even = (ratio_95, 1.0) if words.is_minimized else (difference_95, 0.0)
    if between is None or between[0] <= even <= between[1]:
        return Held.UNDECIDED
    return Held.HOLDS if words.direction.is_better(between[0], even) else Held.FAILS


def _summary(each: Carried, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["schedule"] == each.name]
    counts = {verdict.value: 0 for verdict in Held}
    for row in own:
        counts[row["verdict"]] += 1
    ratios = [row["ratio"] for row in own if row["ratio"] is not None]
    return {
        "schedule": each.name,
        "n_variants": len(own),
        **counts,
        "worst_ratio": max(ratios, default=None),
    }


def variants_of(
    studies: Sequence[tuple[str, StudyConfig]], seeds: Sequence[int]
) -> list[ModelVariant]:
    """Every study at every seed."""
    return [
        ModelVariant(label=label, config=config, seed=seed)
        for label, config in studies
        for seed in seeds
    ]


def carried(paths: Sequence[Path]) -> list[Carried]:
    """The schedules in files, by names that tell them apart; raises `InvalidSchedule`."""
    names = [path.name for path in paths]
    return [
        Carried(
            name=path.name if names.count(path.name) == 1 else str(path),
            schedule=Schedule.load(path),
        )
        for path in paths
    ]
