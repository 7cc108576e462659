"""The keywords of `s3search.search`, and the study that they ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from s3search.cluster import check_address
from s3search.errors import InvalidConfig, nearest
from s3search.evaluation.live import LiveObjects
from s3search.processes import NoiseProcess
from s3search.run.brought import (
    Brought,
    features_of,
    metric_of,
    model_of,
    options_of,
    reference_of,
)
from s3search.study.file.config import StudyConfig, load_config, parse_config
from s3search.study.results.progress import Report

Table = Mapping[str, Any]

_EVALUATIONS = 300  # unless a time is given
_ELSEWHERE = {  # what others call it
    "n_trials": "evaluations",
    "timeout": 'search={"wall_seconds": ...}',
    "study_name": "name",
    "sampler": "algorithm",
    "n_jobs": 'cluster={"workers": ...}',
    "random_state": "seed",
    "generator": "seed",
    "num_inference_steps": "nfe",
    "show_progress_bar": "progress",
    "verbose": "progress",
    "score": "metric",
    "objective": "metric",
    "loss": "metric",
}
_KEYWORDS = {  # keys of tables that are keywords of their own
    ("space", "nfe"): "nfe",
    ("search", "evaluations"): "evaluations",
    ("search", "n_images"): "n_images",
    ("search", "algorithm"): "algorithm",
    ("validation", "metric"): "validation_metric",
    ("cluster", "address"): "workers",
}
_TABLES = ("space", "statistics", "search", "validation", "cluster")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchKeywords:
    """All keywords, as they were given; `s3search.search` explains them."""

    model: Any
    reference: Any = None
    features: Any = None
    metric: Any = None
    nfe: int | Sequence[int] = 5
    evaluations: int | None = None
    n_images: int = 1000
    seed: int = 0
    space: str | Table = "usf"
    algorithm: str = "s3"
    process: NoiseProcess | None = None
    sample_shape: Sequence[int] | None = None
    validation_metric: Any = None
    statistics: Table | None = None
    search: Table | None = None
    validation: Table | None = None
    cluster: Table | None = None
    storage: str | Table | None = None
    name: str | None = None
    workers: str = "inline"
    progress: bool | Report | None = None
    takeover: bool = False
    more: Table = field(default_factory=dict)

    @property
    def is_study(self) -> bool:
        """Whether a whole study is asked for, as a value or by the path of its file."""
        if isinstance(self.model, str):
            return self.model.endswith(".toml")
        return isinstance(self.model, StudyConfig | Path)


def study_of(
    asked: SearchKeywords, keywords: Sequence[str] | None = None
) -> tuple[StudyConfig, LiveObjects]:
    """The study, and the objects that it says are live; raises `InvalidConfig`.

    ``keywords`` are those that the caller takes, None: all.  Without a storage the study has the
    default one, and whoever runs it another.
    """
    if asked.is_study:
        _refuse_beside_study(asked)
        own = asked.model
        return (own if isinstance(own, StudyConfig) else load_config(own)), LiveObjects()
    _refuse_unknown(asked, keywords or [own.name for own in fields(SearchKeywords)][:-1])
    _refuse_misplaced(asked)
    model = model_of(asked.model, asked.process, asked.sample_shape, asked.more)
    metric = metric_of(asked.metric, asked.features)
    reference = None
    if asked.reference is not None or asked.metric is None:
        reference = reference_of(asked.reference, model.live)
    second = None
    if asked.validation_metric is not None:
        second = features_of("validation_metric", asked.validation_metric)
    live = LiveObjects(
        model=model.live,
        metric=metric.live,
        reference=None if reference is None else reference.live,
        second=None if second is None else second.live,
        guards=metric.guards,
    )
    real = {} if reference is None else {"reference": reference.table}
    tables = {"model": model.table, "metric": metric.table, **real}
    return parse_config({**tables, **_tables(asked, model, second)}, "s3search.search"), live


def _tables(asked: SearchKeywords, model: Brought, second: Brought | None) -> dict[str, Table]:
    """All tables of the study but those of model, metric and reference."""
    nfe = list(asked.nfe) if isinstance(asked.nfe, Sequence) else [asked.nfe]
    space = asked.space if isinstance(asked.space, Mapping) else {"preset": asked.space}
    search, cluster = dict(asked.search or {}), dict(asked.cluster or {})
    evaluations = asked.evaluations
    if evaluations is None and not {"wall_seconds", "gpu_seconds"} & search.keys():
        evaluations = _EVALUATIONS
    storage = {"url": asked.storage} if isinstance(asked.storage, str) else asked.storage
    images = {"n_images": asked.n_images, "evaluations": evaluations}
    name = asked.name or _name(model.table, nfe)
    return {
        "study": {"name": name, "seed": asked.seed},
        "space": {**space, "nfe": nfe},
        "statistics": asked.statistics or {},
        "search": {**search, **images, "algorithm": asked.algorithm},
        "validation": {
            **(asked.validation or {}),
            "metric": None if second is None else second.table,
        },
        "storage": storage or {},
        "cluster": {**cluster, "address": asked.workers},
    }


def _name(model: Table, nfe: Sequence[int]) -> str:
    """A name that follows from the model and the numbers of calls, so that the call that made it
    resumes it.
    """
    label = model.get("object", model.get("loader", "model"))
    known = (model[key][:8] for key in ("fingerprint",) if key in model)
    return "-".join([str(label), f"nfe{','.join(map(str, nfe))}", *known])


def _refuse_unknown(asked: SearchKeywords, keywords: Sequence[str]) -> None:
    """Raises `InvalidConfig` for what neither the caller nor the model's loader takes."""
    options = options_of(asked.model) if asked.more else None
    unknown = [] if options is None else [key for key in asked.more if key not in options]
    if unknown:
        hint = _hint(unknown[0], keywords, options or ())
        raise InvalidConfig(f"{unknown[0]}: unknown keyword; {hint}")


def _refuse_misplaced(asked: SearchKeywords) -> None:
    """Raises `InvalidConfig` for tables that are none, and for their keys that are keywords."""
    for name in _TABLES:
        given = getattr(asked, name)
        if not isinstance(given, Mapping | None) and name != "space":
            raise InvalidConfig(
                f"{name}: needs a mapping, the table [{name}] of a study file, found {given!r}"
            )
    for (name, key), keyword in _KEYWORDS.items():
        given = getattr(asked, name)
        if isinstance(given, Mapping) and key in given:
            raise InvalidConfig(f"{name}.{key}: is the keyword {keyword}; give {keyword}=...")
    if not isinstance(asked.workers, str):
        raise InvalidConfig(
            "workers: is the place where they run ('inline', 'local', 'auto', 'ray://host:10001'),"
            f" found {asked.workers!r}; how many is cluster={{'workers': ...}}"
        )
    check_address(asked.workers)


def _hint(key: str, keywords: Sequence[str], options: Sequence[str]) -> str:
    """What is meant, as far as others' words, the tables and the nearest word tell."""
    elsewhere = _ELSEWHERE.get(key, "")
    if elsewhere.partition("=")[0] in keywords:
        return f"here it is {elsewhere}"
    for name in _TABLES:
        table = StudyConfig.model_fields[name].annotation
        fields_of_table = getattr(table, "model_fields", {})
        if name in keywords and key in fields_of_table and (name, key) not in _KEYWORDS:
            return f"it is a key of a table: {name}={{{key!r}: ...}}"
    return nearest(key, [*keywords, *options])


def _refuse_beside_study(asked: SearchKeywords) -> None:
    """Raises `InvalidConfig` for a keyword that a study answers itself."""
    usual = SearchKeywords(model=None)
    for own in fields(SearchKeywords):
        given, default = getattr(asked, own.name), getattr(usual, own.name)
        is_said = given is not default and (type(given) is not type(default) or given != default)
        if is_said and own.name not in ("model", "progress", "takeover"):
            raise InvalidConfig(
                f"{own.name}: was given beside a whole study, which says it already; change the "
                "study, or leave the keyword out"
            )
