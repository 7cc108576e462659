"""The study file: TOML in, typed values out.

Unknown keys are errors that name the nearest right key; every table but ``[study]``, ``[model]``,
``[space]``, ``[metric]`` and ``[reference]`` may be left out.
"""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from s3search.errors import InvalidConfig, nearest
from s3search.evaluation.limits import MOST_IMAGES
from s3search.evaluation.spec import EvaluatorSpec, Precision
from s3search.files import text_of
from s3search.search.conversation import NoiseSeeds
from s3search.search.direction import Direction
from s3search.search.guard import Guard
from s3search.search.ladder import DEFAULT_LADDER, LadderRung
from s3search.search.questions import PolishLoss
from s3search.study.file.held_out import held_out_images
from s3search.study.file.metric_tables import MeasureTable, MetricTable
from s3search.study.file.protocols import with_protocol
from s3search.study.file.table import OpenTable, Table

DEFAULT_STORAGE = "sqlite:///s3search.db"


def _whole(least: int, of_what: str, auto: str, most: int | None = None) -> BeforeValidator:
    """A whole number from ``least`` to ``most``, or "auto" and what that stands for."""
    bound = "" if most is None else f" to {most:,}"

    def checked(value: object) -> object:
        is_whole = type(value) is int and least <= value <= (value if most is None else most)
        if value != "auto" and not is_whole:
            raise ValueError(
                f"is a whole number of {of_what} from {least}{bound}, or 'auto' for {auto}; "
                f"found {value!r}"
            )
        return value

    return BeforeValidator(checked)


def _polish_loss(value: object) -> object:
    """The loss under its name of today; it was a Fréchet distance when there was no other."""
    return "metric" if value == "frechet" else value


class StudyTable(Table):
    """``[study]``: the name under which a study is found again, and its seed."""

    name: str = Field(min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0, lt=2**62)

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError("a study's name is printable and has no spaces around it")
        return name


class ModelTable(OpenTable):
    """``[model]``: a loader and its keys."""

    loader: str


class SpaceTable(OpenTable):
    """``[space]``: a preset, the numbers of network calls, and any field of the preset."""

    preset: str = "usf"
    nfe: tuple[int, ...] = Field(min_length=1)

    @field_validator("nfe")
    @classmethod
    def _counts(cls, nfe: tuple[int, ...]) -> tuple[int, ...]:
        if min(nfe) < 1 or max(nfe) > 100 or len(set(nfe)) != len(nfe):
            raise ValueError("nfe lists different numbers of network calls from 1 to 100")
        return tuple(sorted(nfe))


class ReferenceTable(OpenTable):
    """``[reference]``: real images or their statistics."""

    images: str


class StatisticsTable(Table):
    """``[statistics]``: files that `s3search tools statistics` wrote for this model."""

    ems: str | None = None
    gaussian: str | None = None


class SearchTable(Table):
    """``[search]``: how long, how fine, and by which algorithm."""

    algorithm: str = "s3"  # "evolution", "usf", "autodiffusion", "random", "optuna:tpe", ...
    evaluations: int | None = Field(default=None, ge=0)
    wall_seconds: float | None = Field(default=None, gt=0)
    gpu_seconds: float | None = Field(default=None, gt=0)
    n_images: int = Field(default=1000, ge=2, le=MOST_IMAGES)
    baselines: bool = True
    seeds: tuple[str, ...] = ()  # schedule files
    batch: int = Field(default=16, ge=1)  # proposals under way at once
    ladder: tuple[LadderRung, ...] = DEFAULT_LADDER  # of s3
    keep_invariants: bool = False  # polished rows carry constants exactly
    polish_loss: Annotated[PolishLoss, BeforeValidator(_polish_loss)] = "metric"
    check: bool = True  # model, extractor and reference, by a few calls before anything is spent

    @model_validator(mode="after")
    def _has_a_budget(self) -> "SearchTable":
        if self.evaluations is None and self.wall_seconds is None and self.gpu_seconds is None:
            raise ValueError("give a budget: evaluations, wall_seconds or gpu_seconds")
        return self


class ValidationTable(Table):
    """``[validation]``: how the finalists are re-scored on noise that the search never saw."""

    n_images: Annotated[
        int | Literal["auto"],
        _whole(
            2, "images", "so many that the validation costs about what the search did", MOST_IMAGES
        ),
    ] = "auto"
    finalists: int = Field(default=8, ge=1)
    baselines: bool = True  # the best published solvers beside them
    metric: MetricTable | None = None  # a second one, which chooses nothing


class StorageTable(Table):
    """``[storage]``: the database, and a folder for what the dashboard shows beside it."""

    url: str = DEFAULT_STORAGE
    artifacts: str | None = None  # None: beside an SQLite file, else none are written


class ClusterTable(Table):
    """``[cluster]``: where schedules are evaluated."""

    address: str = "local"
    workers: Annotated[  # "auto": as many as fit; at most 8 on CPUs
        int | Literal["auto"],
        _whole(1, "workers", "as many as the cluster has GPUs (CPUs, where it has none)"),
    ] = "auto"
    min_workers: int | None = Field(default=None, ge=0)  # None: all of them
    gpus_per_worker: float | Literal["auto"] = "auto"  # 1 where there are GPUs
    batch_size: int | None = Field(default=None, ge=1)
    precision: Precision = "float32"  # of the network's products while sampling
    population: Annotated[  # evaluations in one task, which share calls
        int | Literal["auto"], _whole(1, "schedules", "as many as fill a batch of the GPU")
    ] = "auto"
    task_seconds: float | None = Field(default=None, gt=0)  # None: a task may take any time
    import_from: tuple[str, ...] | None = None  # folders beside the study file's own

    @field_validator("gpus_per_worker", mode="before")
    @classmethod
    def _share(cls, gpus: object) -> object:
        is_share = not isinstance(gpus, bool) and isinstance(gpus, int | float) and gpus >= 0
        if gpus != "auto" and not is_share:
            raise ValueError(
                "is 0, a share of a GPU, a number of GPUs, or 'auto' for one where the cluster "
                f"has any; found {gpus!r}"
            )
        return gpus

    @model_validator(mode="after")
    def _begins_with_no_more_than_all(self) -> "ClusterTable":
        most = math.inf if self.workers == "auto" else self.workers
        if self.min_workers is not None and self.min_workers > most:
            raise ValueError(
                f"min_workers = {self.min_workers} of workers = {self.workers}: a search cannot "
                "wait for more workers than it asks for; raise workers, or lower min_workers"
            )
        return self


class StudyConfig(Table):
    """A whole study file."""

    study: StudyTable
    model: ModelTable
    space: SpaceTable
    metric: MetricTable
    reference: ReferenceTable | None = None  # a study of scores alone can do without
    statistics: StatisticsTable = StatisticsTable()
    search: SearchTable = SearchTable(evaluations=300)
    validation: ValidationTable = ValidationTable()
    storage: StorageTable = StorageTable()
    cluster: ClusterTable = ClusterTable()

    @model_validator(mode="after")
    def _has_another_second_metric(self) -> "StudyConfig":
        if self.validation.metric == self.metric:
            raise ValueError(
                "validation.metric: is the extractor of [metric] again; name another one, or "
                "leave it out"
            )
        return self

    @model_validator(mode="after")
    def _has_a_reference(self) -> "StudyConfig":
        distances = [own.kind for own in self.metrics if own.kind != "score"]
        if self.reference is None and distances:
            raise ValueError(
                "reference: missing; a distance is one to real images or their statistics. See "
                "`s3search demo` for a complete study file"
            )
        if self.validation.metric is not None and self.validation.metric.guard:
            raise ValueError(
                "validation.metric.guard: a second metric chooses nothing, so nothing can be "
                "guarded from it; write [[metric.guard]]"
            )
        for table in ("search", "validation") if self.metric.guard else ():
            if not getattr(self, table).baselines:
                raise ValueError(
                    "metric.guard: is measured by the best published solver, and "
                    f"{table}.baselines = false leaves these out; take one of the two back"
                )
        return self

    @property
    def metrics(self) -> tuple[MeasureTable, ...]:
        """All that the study measures by, the deciding one first."""
        second = () if self.validation.metric is None else (self.validation.metric,)
        return (self.metric, *self.metric.guard, *second)

    @property
    def direction(self) -> Direction:
        """Whether more of the deciding metric is better."""
        return self.metric.settled_direction

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What may not get worse, as a search knows it; several of one name have their number."""
        found = [each.guard for each in self.metric.guard]
        names = Counter(each.name for each in found)
        numbered = (f"{each.name} (guard {i})" for i, each in enumerate(found, start=1))
        return tuple(
            each if names[each.name] == 1 else replace(each, name=name)
            for each, name in zip(found, numbered, strict=True)
        )

    @property
    def held_out_images(self) -> int:
        """Images that the validation makes of each schedule: as many as are asked for, else as
        follow from the search.
        """
        asked, search = self.validation.n_images, self.search
        if asked != "auto":
            return asked
        n = search.evaluations
        return held_out_images(
            search.n_images,
            evaluations=None if n is None else n / len(self.space.nfe),
            finalists=self.validation.finalists,
            baselines=self.validation.baselines and search.baselines,
        )

    def settled(self, before: "StudyConfig | None" = None) -> "StudyConfig":
        """The study with a number of held-out images that stays what it was ``before``, unless
        another one is asked for: a larger budget leaves what is validated comparable.
        """
        if self.validation.n_images != "auto":
            return self
        n_images = (before or self).held_out_images
        validation = self.validation.model_copy(update={"n_images": n_images})
        return self.model_copy(update={"validation": validation})

    @property
    def import_folders(self) -> tuple[str, ...]:
        """Where modules that the study names are looked for after Python's own places: the
        folders of ``cluster.import_from``, and the current one.
        """
        return (*(self.cluster.import_from or ()), str(Path.cwd()))

    @property
    def evaluator_spec(self) -> EvaluatorSpec:
        """What a worker needs."""
        second, real = self.validation.metric, self.reference
        guards = enumerate(self.metric.guard)
        return EvaluatorSpec(
            model=self.model.loader,
            model_options=self.model.options,
            metric=self.metric.spec("metric"),
            reference=None if real is None else real.images,
            reference_options={} if real is None else real.options,
            second=None if second is None else second.spec("validation.metric"),
            guards=tuple(guard.spec(f"metric.guard[{i}]") for i, guard in guards),
            ems=self.statistics.ems,
            gaussian=self.statistics.gaussian,
            device=self._device,
            batch_size=self.cluster.batch_size,
            precision=self.cluster.precision,
            import_from=self.import_folders,
        )

    @property
    def _device(self) -> str:
        gpus = self.cluster.gpus_per_worker
        if gpus == "auto":
            return gpus
        return "cuda" if gpus > 0 else "cpu"

    @property
    def measuring_spec(self) -> EvaluatorSpec:
        """What a worker needs that measures its reference, whatever was measured before."""
        spec = self.evaluator_spec
        options = {k: v for k, v in spec.reference_options.items() if k != "statistics"}
        return replace(spec, reference_options=options)

    @property
    def search_noise_seed(self) -> int:
        """Seed of the noise that ranks candidates."""
        return 2 * self.study.seed

    @property
    def validation_noise_seed(self) -> int:
        """Seed of the held-out noise; never a search seed of any study."""
        return 2 * self.study.seed + 1

    @property
    def noise_seeds(self) -> NoiseSeeds:
        """Those that a search draws from; none is the validation's of any study."""
        seed = self.study.seed
        return NoiseSeeds(
            search=self.search_noise_seed,
            finals=2**63 + seed,
            trajectory=2**64 + seed,
            polish=2**65 + 2**32 * seed,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between two launches of one study: all but budget and machines.

        Statistics must not change either; they are compared by digest, wherever their files lie.
        """
        apart = {"storage", "cluster", "validation", "statistics"}
        content = self.model_dump(mode="json", exclude=apart)
        for key in ("evaluations", "wall_seconds", "gpu_seconds", "check"):
            content["search"].pop(key)
        return content


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study file at ``path`` with ``table.key=value`` overrides; raises `InvalidConfig`.

    Folders of ``cluster.import_from`` are taken from the file's, which comes before them.
    """
    config = config_from_text(text_of(path), str(path), overrides)
    folder = Path(path).resolve().parent
    folders = tuple(str(folder / each) for each in (".", *(config.cluster.import_from or ())))
    missing = [each for each in folders if not Path(each).is_dir()]
    if missing and config.cluster.address in ("inline", "local"):  # others may have them elsewhere
        raise InvalidConfig(
            f"{path}: cluster.import_from: there is no folder {missing[0]!r}; name folders that "
            "hold modules, or leave the key out: the study file's own is looked in anyway"
        )
    cluster = config.cluster.model_copy(update={"import_from": folders})
    return config.model_copy(update={"cluster": cluster})


def config_from_text(text: str, source: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study in a text of TOML, with overrides; raises `InvalidConfig`, whose messages begin
    with ``source``.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML's own is a ValueError
        raise InvalidConfig(f"{source}: not valid TOML ({error})") from error
    for override in overrides:
        _apply(data, override)
    _check_numbers(data, source)
    return parse_config(data, source=source)


def parse_config(data: Mapping[str, Any], source: str = "study") -> StudyConfig:
    """The typed form of a study; raises `InvalidConfig` with the path of the key at fault."""
    try:
        return StudyConfig.model_validate(with_protocol(data))
    except InvalidConfig as error:
        raise InvalidConfig(f"{source}: {error}") from error
    except ValidationError as error:
        raise InvalidConfig(f"{source}: {_sentence(error)}") from error


def _check_numbers(data: Mapping[str, Any], source: str, path: str = "") -> None:
    """Raises `InvalidConfig` for a whole number that no database and no generator takes."""
    for key, value in data.items():
        where = f"{path}{key}"
        if isinstance(value, Mapping):
            _check_numbers(value, source, f"{where}.")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise InvalidConfig(
                f"{source}: {where}: a whole number of {value.bit_length()} bits; at most 63 are "
                "taken"
            )


def _apply(data: dict[str, Any], override: str) -> None:
    match = re.fullmatch(r"([\w-]+)\.([\w.-]+)=(.*)", override, flags=re.DOTALL)
    if match is None:
        raise InvalidConfig(f"--set takes table.key=value, found {override!r}")
    table, key, raw = match.groups()
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        value = raw  # a bare word is a string
    *parents, last = key.split(".")
    target: Any = data
    for parent in [table, *parents]:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise InvalidConfig(f"--set {override}: {parent!r} is not a table")
    target[last] = value


_TABLES: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in StudyConfig.model_fields.items()
    if isinstance(field.annotation, type)  # others take any key
}


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "extra_forbidden":
            *parents, key = (str(part) for part in first["loc"])
            known = _TABLES[parents[0]].model_fields if parents else StudyConfig.model_fields
            return f"{path}: unknown key; {nearest(key, known)}"
        case "missing":
            return f"{path}: missing; see `s3search demo` for a complete study file"
        case "value_error":
            said = str(first["ctx"]["error"])
            is_of_key = said.partition(":")[0] in MeasureTable.model_fields
            return f"{path}{'.' if is_of_key else ': '}{said}" if path else said
        case "tuple_type":
            return f"{path}: needs a list, as in [1, 2], found {first['input']!r}"
        case _:
            return f"{path}: {first['msg']} (found {first['input']!r})"
