"""The front door: `s3search.search` and `s3search.evaluate`, and the package that has them.

Importing this costs nothing: what the two functions need is imported when they are called, and
what else the package offers when it is first asked for, since torch alone takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3search.processes import NoiseProcess
    from s3search.run.found import Evaluation, SearchResult
    from s3search.schedules.schedule import Schedule
    from s3search.study.results.progress import Report

Table = Mapping[str, Any]

_ROOMS = {
    "models": "s3search.models",
    "processes": "s3search.processes",
    "published": "s3search.schedules.published",
}
_HOMES = {
    "Plan": "s3search.solvers.plan",
    "Schedule": "s3search.schedules.schedule",
    "compile_plan": "s3search.solvers.plan",
    "compile_plans": "s3search.solvers.plan",
    "sample": "s3search.solvers.sample",
}


def search(  # noqa: PLR0913  # the keys of a study file, each by its name
    model: Any,
    *,
    reference: Any = None,
    features: Any = None,
    metric: Any = None,
    nfe: int | Sequence[int] = 5,
    evaluations: int | None = None,
    n_images: int = 1000,
    seed: int = 0,
    space: str | Table = "usf",
    algorithm: str = "s3",
    process: "NoiseProcess | None" = None,
    sample_shape: Sequence[int] | None = None,
    validation_metric: Any = None,
    statistics: Table | None = None,
    search: Table | None = None,
    validation: Table | None = None,
    cluster: Table | None = None,
    storage: str | Table | None = None,
    name: str | None = None,
    workers: str = "inline",
    progress: "bool | Report | None" = None,
    takeover: bool = False,
    **more: Any,
) -> "SearchResult":
    """Searches solver schedules of ``nfe`` network calls for a model, with ``evaluations`` (300)
    of ``n_images`` images each; docs/python.md explains every keyword.

    ``model`` is a denoiser D(x, t) -> x0 on samples (B, ...) of any rank with ``process`` and
    ``sample_shape``, or any callable with these as keywords; a diffusers pipeline; or a loader's
    name.  ``reference`` are real images (N, C, H, W) in [-1, 1], or samples (N, ...) of another
    rank, a folder, a .npz of statistics or a loader's name; ``features`` maps images to (B, d), or
    is a name, and images are judged by their Fréchet distance there; or by ``metric``: another
    distance of features ("kernel", "cmmd", "mind"), a score ``(images, **given) -> (B,)``, or the
    table [metric] of a study file.  Raises `InvalidConfig` for wrong input, and `StudyConflict`
    where ``storage`` has another study of that ``name``, which else goes on.

    >>> found = s3search.search(model, reference=images, features=extractor, nfe=5)
    >>> found.save("schedule.json")
    """
    keywords = locals()
    from s3search.run.keywords import SearchKeywords
    from s3search.run.searching import search_for

    return search_for(SearchKeywords(**keywords))


def evaluate(  # noqa: PLR0913  # as in `search`
    schedule: "Schedule | str | Path",
    model: Any,
    *,
    reference: Any = None,
    features: Any = None,
    metric: Any = None,
    n_images: int = 10_000,
    seed: int = 7,
    process: "NoiseProcess | None" = None,
    sample_shape: Sequence[int] | None = None,
    statistics: Table | None = None,
    cluster: Table | None = None,
    workers: str = "inline",
    **more: Any,
) -> "Evaluation":
    """Measures one schedule, or the one in a file: the distance from the reference, or the score,
    of ``n_images`` images, made of the noise of ``seed``.

    The result has ``value``, ``standard_error``, a 95 % ``interval``, and all that the number
    means nothing without.  Everything else is as in `s3search.search`; nothing is stored.  Raises
    `InvalidConfig`, `InvalidSchedule` for a schedule of another process, and `EvaluationFailed`.

    >>> s3search.evaluate(found.schedule, model, reference=images, features=extractor).value
    """
    from s3search.run.keywords import SearchKeywords
    from s3search.run.searching import evaluate_for

    asked = SearchKeywords(
        model=model,
        reference=reference,
        features=features,
        metric=metric,
        process=process,
        sample_shape=sample_shape,
        statistics=statistics,
        cluster=cluster,
        workers=workers,
        more=more,
    )
    return evaluate_for(schedule, asked, n_images=n_images, seed=seed)


class FrontPackage(ModuleType):
    """The class of the package `s3search`: it imports what it offers when that is asked for, and
    its attribute ``search`` is the function: importing its room of that name binds the room to the
    package, as importing any module does, and that is left out here.
    """

    def __getattr__(self, name: str) -> Any:
        """A public name that has not been asked for yet; a room, or what one room defines."""
        if name in _ROOMS:
            value: Any = import_module(_ROOMS[name])
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_ROOMS, *_HOMES})

    def __setattr__(self, name: str, value: object) -> None:
        if name != "search" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """By its name, as any module is pickled; a function of a notebook may use it."""
        return import_module, (self.__name__,)
