"""Which search ``search.algorithm`` names, and what every search starts from."""

from pathlib import Path
from typing import Protocol

from s3search.errors import IncompatibleStatistics, InvalidConfig, InvalidSchedule, nearest
from s3search.evaluation.record import Description, statistics_problem
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import NoiseProcess
from s3search.run.own_baselines import own_baselines
from s3search.schedules.published import baselines
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.autodiffusion import AutoDiffusion
from s3search.search.algorithms.evolution import SEED, Evolution, RandomSearch, distinct
from s3search.search.algorithms.guided import GuidedSearch
from s3search.search.algorithms.layered import LayeredAutoDiffusion, affordable, within
from s3search.search.algorithms.s3 import S3, S3Settings
from s3search.search.algorithms.sequential import Sequential
from s3search.search.algorithms.usf import UsfEvolution
from s3search.search.lab import Lab
from s3search.search.proposer import Proposer
from s3search.search.space.space import SearchSpace
from s3search.study.file.config import StudyConfig

ALGORITHMS = (
    "s3",
    "evolution",
    "random",
    "usf",
    "autodiffusion",
    "autodiffusion:ddim",
    "autodiffusion:2m",
    "optuna:tpe",
    "optuna:random",
    "optuna:cmaes",
    "optuna:nsgaii",
)

_GUIDED = ("evolution", "random")  # which know nothing of the schedules but their values


class Search(Protocol):
    """A whole search; ``total`` is its budget in measurements, None where that is time."""

    @property
    def total(self) -> int | None: ...

    def run(self, lab: Lab) -> None:
        """Searches until the budget is spent."""


def make_search(
    config: StudyConfig, space: SearchSpace, process: NoiseProcess, seeds: dict[str, Schedule]
) -> Search:
    """The search that the study file asks for; raises `InvalidConfig` for an unknown name."""
    search, n_seeds = config.search, len(seeds)
    if space.guidance is not None and search.algorithm not in _GUIDED:
        raise InvalidConfig(
            f"space.guidance: {search.algorithm!r} searches no guidance; use one of "
            f"{', '.join(_GUIDED)}, or set guidance_scale in [model] and remove space.guidance"
        )
    if space.cost is not None and space.layers is not None:
        if search.algorithm.partition(":")[0] != "autodiffusion":
            raise InvalidConfig(
                f"space.cost: {search.algorithm!r} leaves no blocks out; use 'autodiffusion', or "
                "remove space.cost"
            )
        affordable(config.space.nfe, space.layers, space.cost)
        n_seeds = len(within(seeds, space.layers, space.cost))
    if search.algorithm == "s3":
        settings = S3Settings(ladder=search.ladder, batch=search.batch)
        return S3(
            space,
            process,
            nfe=config.space.nfe,
            seed=config.study.seed,
            seeds=seeds,
            evaluations=search.evaluations,
            settings=settings,
        )
    return Sequential(
        lambda: make_proposer(config, space, process, seeds),
        n_seeds=n_seeds,
        evaluations=search.evaluations,
        batch=search.batch,
    )


def baseline_seeds(
    config: StudyConfig, process: NoiseProcess, own: OwnSampler | None = None
) -> dict[str, Schedule]:
    """What a pipeline runs unless told otherwise, then published solvers, by name, each plan once,
    at most as many per NFE as the search may evaluate; `s3` itself decides how many it affords.

    Names carry the NFE when the study searches several.
    """
    if not config.search.baselines:
        return {}
    many = len(config.space.nfe) > 1
    seeds: dict[str, Schedule] = {}
    for nfe in config.space.nfe:
        usual = {} if own is None else own_baselines(own, process, nfe)
        found = list(distinct({**usual, **baselines(process, nfe)}).items())
        most = None if config.search.algorithm == "s3" else config.search.evaluations
        for name, schedule in found[:most]:
            seeds[f"{name}, NFE {nfe}" if many else name] = schedule
    return seeds


def given_seeds(config: StudyConfig, description: Description) -> dict[str, Schedule]:
    """The schedules in the files of ``search.seeds``, by the origin they are proposed with; raises
    `InvalidConfig` for any that this study cannot measure.
    """
    seeds: dict[str, Schedule] = {}
    for i, file in enumerate(config.search.seeds):
        name = Path(file).name
        origin = SEED + (file if SEED + name in seeds else name)
        try:
            seeds[origin] = _seed(Schedule.load(file), config, description)
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
    if schedule.process == process:
        return schedule
    fields = {name: getattr(schedule, name) for name in Schedule.model_fields}
    return Schedule(**{**fields, "process": process})


def make_proposer(
    config: StudyConfig, space: SearchSpace, process: NoiseProcess, seeds: dict[str, Schedule]
) -> Proposer:
    """The proposer that the study file asks for; raises `InvalidConfig` for an unknown name."""
    if space.guidance is not None:
        alone = space.model_copy(update={"guidance": None})
        schedules = make_proposer(config, alone, process, seeds)
        return GuidedSearch(schedules, space.guidance, seed=config.study.seed)
    name, _, sampler = config.search.algorithm.partition(":")
    nfe, seed = config.space.nfe, config.study.seed
    match name, sampler:
        case "evolution", "":
            return Evolution(space, process, nfe=nfe, seed=seed, seeds=seeds)
        case "random", "":
            return RandomSearch(space, process, nfe=nfe, seed=seed, seeds=seeds)
        case "usf", "":
            return UsfEvolution(space, process, nfe=nfe, seed=seed, seeds=seeds)
        case "autodiffusion", solver if space.cost is not None:
            return LayeredAutoDiffusion(
                space,
                process,
                nfe=nfe,
                seed=seed,
                seeds=seeds,
                solver=solver,
                evaluations=config.search.evaluations,
            )
        case "autodiffusion", solver:
            return AutoDiffusion(space, process, nfe=nfe, seed=seed, seeds=seeds, solver=solver)
        case "optuna", str() if sampler:
            from s3search.search.algorithms.optuna import OptunaProposer  # noqa: PLC0415  slow import

            return OptunaProposer(sampler, space, process, nfe=nfe, seed=seed, seeds=seeds)
    raise InvalidConfig(
        f"search.algorithm: unknown algorithm {config.search.algorithm!r}; "
        + nearest(config.search.algorithm, ALGORITHMS)
    )
