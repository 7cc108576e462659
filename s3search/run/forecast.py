"""What a study will cost, before it is spent: network calls by stage, and seconds once a few
images were made.

A network call is that of one image, so a stage's are its images times the calls of a schedule;
guidance that doubles the batch doubles them.  The shares of the budget are the search's own
(``images_by_stage``).  Numbers of the validation, which depend on what will be found, are the most
that they can be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from s3search.cluster.asking import Pool, answers_to, measured_by
from s3search.errors import EvaluationFailed
from s3search.run.fine_targets import noises_of, solves_foretold
from s3search.run.prepare import Prepared
from s3search.schedules.published.baselines import published_solvers
from s3search.search.conversation import Ask
from s3search.search.questions import HELD_OUT_SOLVES, SOLVES, Measure, Measurement, Rung, measure
from s3search.search.trial import Trial
from s3search.study.file.config import StudyConfig
from s3search.study.results.budget import budget_words
from s3search.study.results.forecast import CostForecast
from s3search.study.results.frame import most_validated

_MOST_TRIED = 256  # images of the batch that is timed


def forecast_of(
    config: StudyConfig,
    start: Prepared,
    pool: Pool,
    *,
    spent: int = 0,
    rungs: Sequence[Mapping[str, Any]] = (),
) -> CostForecast:
    """The cost of a study that is prepared, of which ``spent`` network calls were made before;
    ``rungs`` says which parts of the search work (`s3search.study.results.rungs.parts_of`).
    """
    description, place = start.description, pool.place
    validated = to_validate(config, start.seeds)
    searched = config.space.nfe if start.extension is None else start.extension.nfe
    mean_nfe = sum(searched) / len(searched)
    calls = {name: n * mean_nfe for name, n in _images_by_stage(config, start).items()}
    solves = solves_foretold(config)
    if SOLVES in solves:
        calls = {SOLVES: solves[SOLVES], **calls}  # as `calls` says, where the search does
    if HELD_OUT_SOLVES in solves:
        calls[HELD_OUT_SOLVES] = solves[HELD_OUT_SOLVES]
    calls["validation"] = config.held_out_images * sum(nfe * n for nfe, n in validated.items())
    idle = place.idle_note(description.device)
    return CostForecast(
        budget=budget_words(config.search, config.search.evaluations),
        network_calls={
            name: round(own * description.batches_per_call) for name, own in calls.items()
        },
        validated=sum(validated.values()),
        held_out_images=config.held_out_images,
        real_images=0 if description.mean_image is None else config.held_out_images,
        spent=spent,
        n_workers=place.n_workers,
        notes=(idle,) if idle else (),
        rungs=tuple(rungs),
    )


def to_validate(config: StudyConfig, seeds: Sequence[Trial]) -> dict[int, int]:
    """How many schedules are validated, at most, by number of calls."""
    found = {}
    for nfe in config.space.nfe:
        origins = [seed.origin for seed in seeds if seed.nfe == nfe and seed.origin.is_baseline]
        found[nfe] = most_validated(config, [origin.solver for origin in origins])
    return found


def timed(
    forecast: CostForecast, config: StudyConfig, start: Prepared, pool: Pool
) -> CostForecast:
    """The forecast with seconds: what a small batch and one of twice as many images take, after
    one that warms up; raises `EvaluationFailed` where these fail.
    """
    nfe = config.space.nfe[0]
    n = max(2, min(config.search.n_images, start.description.batch_size, _MOST_TRIED))
    schedule = published_solvers(start.description.process, nfe)[0].schedule
    asked = [
        measure(schedule, rung=Rung.USER, n_images=size, noise_seed=seed)
        for seed, size in enumerate((n, n, 2 * n))
    ]
    list(answers_to(pool, noises_of(config).missing(Ask(begin=tuple(asked)))))  # not timed
    _, one, two = (_measured(pool, question) for question in asked)
    image = max((two.seconds - one.seconds) / n, two.seconds / (4 * n))
    statistics = max(0.0, one.seconds - n * image)  # of the features of one evaluation
    calls_of_image = two.network_calls / (2 * n)
    seconds = {}
    for name, calls in forecast.network_calls.items():
        size = config.held_out_images if name == "validation" else config.search.n_images
        seconds[name] = calls / calls_of_image * (image + statistics / size)
    return replace(forecast, seconds=seconds)


def _measured(pool: Pool, question: Measure) -> Measurement:
    (found,) = measured_by(pool, [question])
    if found.error is not None:
        raise EvaluationFailed(f"the first images could not be measured: {found.error}")
    return found


def _images_by_stage(config: StudyConfig, start: Prepared) -> dict[str, float]:
    """Of the search, in this version of its space; of one whose budget is time nobody knows."""
    total = config.search.evaluations
    if total is None:
        return {}
    budget = max(0.0, total - start.spent_before) * config.search.n_images
    by_stage: Callable[[float], Mapping[str, float]] | None
    by_stage = getattr(start.search, "images_by_stage", None)
    return {"search": budget} if by_stage is None else dict(by_stage(budget))
