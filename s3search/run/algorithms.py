"""Which search ``search.algorithm`` names: a built-in one, or a class of one's own."""

from collections.abc import Callable

from s3search.errors import InvalidConfig, nearest
from s3search.models.importing import imported
from s3search.search.algorithms.autodiffusion import AutoDiffusion
from s3search.search.algorithms.evolution import Evolution, RandomSearch
from s3search.search.algorithms.guided import GuidedSearch
from s3search.search.algorithms.layered import LayeredAutoDiffusion, affordable, within
from s3search.search.algorithms.s3 import S3
from s3search.search.algorithms.sequential import Proposer, Sequential
from s3search.search.algorithms.usf import UsfEvolution
from s3search.search.conversation import Search, Setup

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
_LISTED = ("s3", "evolution", "random")  # which search levels under any steps
_BUILT_IN = {name.partition(":")[0] for name in ALGORITHMS}  # no modules of that name


def make_search(algorithm: str, setup: Setup) -> Search:
    """The search of a name, or of the class at an import path (``"my_package.search:MySearch"``);
    raises `InvalidConfig` for what there is not, or what the space does not go with.
    """
    name, colon, _ = algorithm.partition(":")
    _check_space(algorithm, setup)
    if colon and name not in _BUILT_IN:
        return _own_search(algorithm, setup)
    if algorithm == "s3":
        return S3(setup)
    make = proposer_of(algorithm, setup)
    n_seeds = len(setup.seeds)
    layers, cost = setup.problem.layers, setup.problem.space.cost
    if cost is not None and layers is not None:
        affordable(setup.nfe, layers, cost)
        n_seeds = len(within(setup.seeds, layers, cost))
    return Sequential(setup, make, n_seeds=n_seeds)


def proposer_of(algorithm: str, setup: Setup) -> Callable[[], Proposer]:
    """What makes the proposer of a name, alike every time; raises `InvalidConfig` for an unknown
    one.
    """
    if setup.problem.space.guidance is not None:
        return lambda: GuidedSearch(setup, lambda alone: proposer_of(algorithm, alone)())
    name, _, sampler = algorithm.partition(":")
    match name, sampler:
        case "evolution", "":
            return lambda: Evolution(setup)
        case "random", "":
            return lambda: RandomSearch(setup)
        case "usf", "":
            return lambda: UsfEvolution(setup)
        case "autodiffusion", solver if setup.problem.space.cost is not None:
            return lambda: LayeredAutoDiffusion(setup, solver=solver)
        case "autodiffusion", solver:
            return lambda: AutoDiffusion(setup, solver=solver)
        case "optuna", str() if sampler:
            # it takes a second to import
            from s3search.search.algorithms.optuna import OptunaProposer  # noqa: PLC0415

            return lambda: OptunaProposer(sampler, setup)
    raise InvalidConfig(
        f"search.algorithm: unknown algorithm {algorithm!r}; {nearest(algorithm, ALGORITHMS)}, or "
        "a class of your own, written 'package.module:Class'"
    )


def _check_space(algorithm: str, setup: Setup) -> None:
    space = setup.problem.space
    if space.guidance is not None and algorithm not in _GUIDED:
        raise InvalidConfig(
            f"space.guidance: {algorithm!r} searches no guidance; use one of "
            f"{', '.join(_GUIDED)}, or set guidance_scale in [model] and remove space.guidance"
        )
    if setup.problem.listed and algorithm not in _LISTED:
        raise InvalidConfig(
            f"search.algorithm: {algorithm!r} searches steps of its own, and target = 'sigmas' "
            f"has those of a program; use one of {', '.join(_LISTED)}, or another target"
        )
    is_layered = space.cost is not None and setup.problem.layers is not None
    if is_layered and algorithm.partition(":")[0] != "autodiffusion":
        raise InvalidConfig(
            f"space.cost: {algorithm!r} leaves no blocks out; use 'autodiffusion', or "
            "remove space.cost"
        )


def _own_search(path: str, setup: Setup) -> Search:
    """A user's search: a class that takes the setup and has ``run``."""
    made = imported("search.algorithm", path)(setup)
    if not callable(getattr(made, "run", None)):
        raise InvalidConfig(
            f"search.algorithm: {path!r} made a {type(made).__name__} without `run`; a search has "
            "run(), which yields s3search.search.conversation.Ask"
        )
    search: Search = made if hasattr(made, "total") else _WithTotal(made, setup.evaluations)
    return search


class _WithTotal:
    """A search that does not say how long it takes, which the budget then tells."""

    def __init__(self, search: Search, total: int | None) -> None:
        self.total, self.run = total, search.run
