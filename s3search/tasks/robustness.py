"""What schedules are worth under changes of the model: what `s3search robustness` does.

A variant is a study file with a change (another guidance scale, a fine-tuned checkpoint, another
file altogether) and a noise seed.  Under each, the given schedules stand beside the best published
solver of their number of calls.  That one is chosen anew for every variant: all solvers at all
spacings are measured with few images on a noise seed of their own, the best `FINALISTS` of them in
full on the schedules' noise, and the best of these counts.  A choice among results is kind to the
published side, so what holds, holds against that.

A schedule holds if the paired 95 % interval of its distance over the published one's lies below 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from s3search.errors import EvaluationFailed, InvalidSchedule
from s3search.evaluation.record import (
    Description,
    Evaluation,
    EvaluationRequest,
    Rung,
    statistics_problem,
)
from s3search.metrics.intervals import interval, ratio_interval
from s3search.run.driver import describe, evaluate_all
from s3search.run.launching import workers
from s3search.run.own_baselines import own_baselines
from s3search.run.study_lab import Pool
from s3search.schedules.published import End, EndRule, baselines
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import distinct
from s3search.study.file.config import StudyConfig

FINALISTS = 3
_ENDS = (End(rule=EndRule.STOP), End(rule=EndRule.DENOISE))
_LEAST_IMAGES, _SHARE = 100, 20  # of a variant's images, that a published solver is chosen by
_CHOICE_SEED = 2**66  # of the noise that chooses; no other seed is so large

Report = Callable[[str], None]


class Held(StrEnum):
    """Whether a schedule beats the best published solver, by the paired interval."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
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
    evaluation: Evaluation
    n_tried: int


def robustness(
    schedules: Sequence[Carried], variants: Sequence[Variant], *, n_images: int, report: Report
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
    pool: Pool, schedules: Sequence[Carried], variant: Variant, n_images: int
) -> list[dict[str, Any]]:
    description = describe(pool)
    for each in schedules:
        _check(each, variant, description)
    published = {
        nfe: _best_published(pool, description, nfe, variant, n_images)
        for nfe in sorted({each.schedule.nfe for each in schedules})
    }
    found = evaluate_all(
        pool, [_request(each.schedule, n_images, variant.seed) for each in schedules]
    )
    return [
        _row(each, variant, evaluation, published[each.schedule.nfe])
        for each, evaluation in zip(schedules, found, strict=True)
    ]


def _check(each: Carried, variant: Variant, description: Description) -> None:
    own, process = each.schedule.process, description.process
    if not own.same_levels(process):
        raise InvalidSchedule(
            f"{each.name}: process: this is a schedule for {own!r}, the model of "
            f"{variant.label!r} has {process!r}; `s3search retime` moves it there"
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
    pool: Pool, description: Description, nfe: int, variant: Variant, n_images: int
) -> _Published:
    """The best of all in full, of the best few by few images on other noise."""
    process, own = description.process, description.own_sampler
    usual = {} if own is None else own_baselines(own, process, nfe)
    known = distinct({**usual, **baselines(process, nfe, ends=_ENDS)})
    names, schedules = list(known), list(known.values())
    n_few = min(n_images, max(_LEAST_IMAGES, n_images // _SHARE))
    seed = _CHOICE_SEED + variant.seed
    few = evaluate_all(
        pool,
        [
            EvaluationRequest(schedule=s, rung=Rung.USER, n_images=n_few, noise_seed=seed)
            for s in schedules
        ],
    )
    order = sorted(range(len(few)), key=lambda i: _value(few[i]))
    chosen = [i for i in order if math.isfinite(_value(few[i]))][:FINALISTS]
    whole = evaluate_all(pool, [_request(schedules[i], n_images, variant.seed) for i in chosen])
    ranked = sorted(zip(chosen, whole, strict=True), key=lambda pair: _value(pair[1]))
    for i, evaluation in ranked[:1]:
        if isinstance(evaluation, Evaluation):
            return _Published(name=names[i], evaluation=evaluation, n_tried=len(schedules))
    raise EvaluationFailed(
        f"{variant.label}: none of {len(schedules)} published solvers of {nfe} calls could be "
        f"measured{''.join(f' ({each})' for each in few[:1] if isinstance(each, Exception))}"
    )


def _request(schedule: Schedule, n_images: int, seed: int) -> EvaluationRequest:
    """On held-out conditions, with replicates for the intervals."""
    return EvaluationRequest(
        schedule=schedule, rung=Rung.VALIDATION, n_images=n_images, noise_seed=seed
    )


def _value(found: Evaluation | EvaluationFailed) -> float:
    is_number = isinstance(found, Evaluation) and math.isfinite(found.value)
    return found.value if isinstance(found, Evaluation) and is_number else math.inf


def _row(
    each: Carried,
    variant: Variant,
    found: Evaluation | EvaluationFailed,
    published: _Published,
) -> dict[str, Any]:
    own = found if isinstance(found, Evaluation) else None
    against = published.evaluation
    ratio_95 = None
    if own is not None and own.replicates is not None and against.replicates is not None:
        ratio_95 = ratio_interval(own.replicates, against.replicates)
    return {
        "variant": variant.label,
        "noise_seed": variant.seed,
        "schedule": each.name,
        "schedule_id": each.schedule.id,
        "nfe": each.schedule.nfe,
        "guides_itself": _guides_itself(each.schedule),
        "extractor": against.extractor,
        "reference_digest": against.reference_digest,
        "model_fingerprint": against.model_fingerprint,
        "value": None if own is None else own.value,
        "interval_95": None if own is None else _interval(own),
        "error": None if own is not None else str(found),
        "published": {
            "name": published.name,
            "schedule_id": against.schedule_id,
            "value": against.value,
            "interval_95": _interval(against),
            "n_tried": published.n_tried,
        },
        "ratio": own.value / against.value if own is not None and against.value > 0.0 else None,
        "ratio_95": ratio_95,
        "verdict": _verdict(own, ratio_95).value,
    }


def _interval(evaluation: Evaluation) -> tuple[float, float] | None:
    return None if evaluation.replicates is None else interval(evaluation.replicates)


def _verdict(own: Evaluation | None, ratio_95: tuple[float, float] | None) -> Held:
    if own is None:
        return Held.FAILS
    if ratio_95 is None or ratio_95[0] <= 1.0 <= ratio_95[1]:
        return Held.UNDECIDED
    return Held.HOLDS if ratio_95[1] < 1.0 else Held.FAILS


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


def variants_of(studies: Sequence[tuple[str, StudyConfig]], seeds: Sequence[int]) -> list[Variant]:
    """Every study at every seed."""
    return [
        Variant(label=label, config=config, seed=seed)
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
