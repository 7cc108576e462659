"""What a search starts from: what the workers have loaded, the seeds, and the search itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s3search.errors import (
    IncompatibleStatistics,
    InvalidConfig,
    InvalidSchedule,
)
from s3search.evaluation.plugins import importable_from
from s3search.evaluation.record import Description, statistics_problem
from s3search.run.algorithms import make_search
from s3search.run.baselines import (
    KnownBaselines,
    baselines_of_before,
    known_baselines,
)
from s3search.schedules.schedule import Schedule
from s3search.search.conversation import Search, Setup
from s3search.search.early_stopping import SCORE_SHARES, SHARES
from s3search.search.space import Problem, SpaceConfig
from s3search.search.space.targets import narrowed
from s3search.search.trial import Trial, distinct, seeded
from s3search.study.database.store import stored_study
from s3search.study.extensions import Extension
from s3search.study.file.config import StudyConfig
from s3search.study.metric_words import MetricWords
from s3search.study.results.coverage import BASELINES


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a driver starts from; made before anything is written, so that bad input leaves no
    trace.
    """

    description: Description
    search: Search | None = None  # None: only what is asked for is validated
    extension: Extension | None = None  # the version of the space that is searched
    extends: bool = True  # a call that changes nothing costs nothing here
    counts_images: bool = True  # the budget is of images, and not of trials
    seeds: tuple[Trial, ...] = ()  # what the search begins with
    baselines: tuple[KnownBaselines, ...] = ()  # none of a study of before there were stock ones

    @property
    def first_number(self) -> int:
        """The lowest number of the trials of this version of the space."""
        return 0 if self.extension is None else self.extension.first_number

    @property
    def spent_before(self) -> float:
        """Evaluations that the budget has lost to earlier versions."""
        return 0.0 if self.extension is None else self.extension.spent

    @property
    def total(self) -> int | None:
        """The budget in measurements, of all versions of the space."""
        total = None if self.search is None else self.search.total
        if total is None:
            return None
        return total + round(self.spent_before if self.counts_images else self.first_number)


def prepare(
    config: StudyConfig,
    space: SpaceConfig,
    description: Description,
    extension: Extension | None = None,
) -> Prepared:
    """Makes the search for what the workers have loaded, from what its version of the space begins
    with; ``description`` tells of layers where the space has a cost.  Raises for anything wrong.
    """
    importable_from(config.import_folders, (config.search.algorithm,))
    applied = config if extension is None else extension.applied(config)
    has_stock = begins_with_stock(config)
    problem = problem_of(space, description)
    known = known_of(config, description, has_stock=has_stock, noise=problem.space.noise.is_on)
    seeds = seeds_of(config, description, known, extension)
    setup = Setup(
        problem=problem,
        nfe=applied.space.nfe,
        seed=applied.study.seed,
        n_images=config.search.n_images,
        noise=config.noise_seeds,
        seeds=seeds,
        stock_first=has_stock,
        evaluations=applied.search.evaluations,
        batch=config.search.batch,
        ladder=config.search.ladder,
        keep_invariants=config.search.keep_invariants,
        polish_loss=config.search.polish_loss,
        fine_targets=config.metric.target == "fine",
        solves=any(own.target == "fine" for own in (config.metric, *config.metric.guard)),
        has_guards=bool(config.guards),
        metric=MetricWords.of(config.metric).short,
        shares=SCORE_SHARES if config.metric.kind == "score" else SHARES,
    )
    return Prepared(
        description=description,
        search=make_search(config.search.algorithm, setup),
        extension=extension,
        extends=space.cost is None,
        counts_images=config.search.algorithm == "s3",
        seeds=seeds,
        baselines=known if has_stock else (),
    )


def problem_of(space: SpaceConfig, description: Description) -> Problem:
    """The space, as far as its target can express it, with what the workers have found of the
    model; raises `InvalidConfig` where it asks for what the model does not have.
    """
    space, _ = narrowed(space)
    layers = description.layers if space.cost is not None else None
    if space.cost is not None and (layers is None or not layers.layers):
        raise InvalidConfig(
            "space.cost: this model has no block that can be left out; remove the key"
        )
    if space.guidance is not None and not description.takes_guidance:
        raise InvalidConfig(
            "space.guidance: this model has no null condition to be guided away from; "
            "remove the key"
        )
    return Problem.found(
        space,
        description.process,
        mean_image=description.mean_image,
        ems=description.ems,
        gaussian=description.gaussian,
        layers=layers,
    )


def known_of(
    config: StudyConfig, description: Description, *, has_stock: bool = True, noise: bool = False
) -> tuple[KnownBaselines, ...]:
    """The baselines of every number of calls, where the study wants them, those with noise in
    their steps where its space has noise; labels say the number when it searches several.
    """
    if not config.search.baselines:
        return ()
    own, process, many = description.own_sampler, description.process, len(config.space.nfe) > 1
    said = [(nfe, nfe if many else None) for nfe in config.space.nfe]
    if not has_stock:
        return tuple(baselines_of_before(own, process, *each) for each in said)
    return tuple(known_baselines(own, process, *each, noise=noise) for each in said)


def seeds_of(
    config: StudyConfig,
    description: Description,
    known: Sequence[KnownBaselines],
    extension: Extension | None = None,
) -> tuple[Trial, ...]:
    """All that a search begins with: of an earlier version of the space, published, given."""
    seeds = distinct([*baseline_seeds(config, known), *given_seeds(config, description)])
    if extension is None:
        return seeds
    fitting = [seed for seed in seeds if seed.nfe in extension.nfe]
    return distinct([*extension.warm, *fitting])


def baseline_seeds(config: StudyConfig, known: Sequence[KnownBaselines]) -> list[Trial]:
    """The baselines that a search begins with: the usual ones and, per NFE, as many in all as the
    search may evaluate; `s3` itself decides how many it affords.
    """
    most = None if config.search.algorithm == "s3" else config.search.evaluations
    if most == 0:
        return []
    return [
        trial
        for each in known
        for trial in each.trials[: None if most is None else max(most, len(each.usual))]
    ]


def begins_with_stock(config: StudyConfig) -> bool:
    """Whether the search of a study begins with stock solvers: not where trials were made before
    there were any, which a resumed search is to ask for again.
    """
    with stored_study(config.storage.url, config.study.name) as store:
        return store is None or bool(store.notes(BASELINES)) or not store.has_trials()


def given_seeds(config: StudyConfig, description: Description) -> list[Trial]:
    """The schedules in the files of ``search.seeds``; raises `InvalidConfig` for any that this
    study cannot measure.
    """
    seeds: list[Trial] = []
    for i, file in enumerate(config.search.seeds):
        name = Path(file).name
        label = file if any(name == seed.origin.label for seed in seeds) else name
        try:
            seeds.append(Trial.of(_seed(Schedule.load(file), config, description), seeded(label)))
        except (InvalidSchedule, IncompatibleStatistics) as error:
            raise InvalidConfig(f"search.seeds[{i}]: {error}") from error
        except InvalidConfig as error:
            raise InvalidConfig(f"search.seeds[{i}]: {file}: {error}") from error
    return seeds


def _seed(schedule: Schedule, config: StudyConfig, description: Description) -> Schedule:
    process = description.process
    if not schedule.process.same_levels(process):
        raise InvalidConfig(
            f"process: this is a schedule for {schedule.process!r}, the model has {process!r}; "
            "import it for this process, or leave it out"
        )
    if schedule.nfe not in config.space.nfe:
        searched = ", ".join(map(str, config.space.nfe))
        raise InvalidConfig(
            f"nfe: the schedule makes {schedule.nfe} network calls, the study searches {searched};"
            " add the number to space.nfe, or leave the file out"
        )
    if schedule.model_patch is not None:
        raise InvalidConfig("model_patch: a search changes no network; remove the key")
    problem = statistics_problem(schedule, description.ems)
    if problem is not None:
        raise InvalidConfig(problem)
    return schedule if schedule.process == process else schedule.changed(process=process)
