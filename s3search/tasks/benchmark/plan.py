"""What a benchmark measures: methods, numbers of calls, seeds, budgets; each as a study file.

The published searches start from nothing, as published (``search.baselines = false``); `s3` pays
for the published solvers that it looks at out of its own budget.  Each search names one answer,
by its own means: `s3` the first of its finals, the others the lowest distance on the noise of the
search.  That one is measured on held-out noise, so no reported number was chosen for being low.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3search.cluster import check_address
from s3search.errors import InvalidConfig, nearest
from s3search.run.algorithms import ALGORITHMS
from s3search.search.ladder import DEFAULT_LADDER, LadderRung
from s3search.study.file.config import StudyConfig, config_from_text, load_config, parse_config

PUBLISHED = "published solvers"
DEFAULT_ALGORITHMS = ("s3", "usf", "autodiffusion:2m", "optuna:tpe", "random")
DEFAULT_SEEDS = 3
DIGITS = """\
# What `s3search tools bench` runs on when no study file is named; algorithms, budgets, seeds and
# storage are the benchmark's own.
[study]
name = "bench"
[model]
loader = "digits"
[space]
preset = "usf"
nfe = [3, 5, 8]
[metric]
features = "digits"
[reference]
images = "digits"
[search]
evaluations = 300            # the largest budget
n_images = 1000
[validation]
n_images = 10000
[cluster]
address = "inline"
"""

_SHARES = (8, 4, 2, 1)  # of the largest budget
_QUICK = ("search.n_images=100", "validation.n_images=500", "search.evaluations=20")
_NO_TIME = 1e-9  # seconds: over before the first proposal that is no published solver


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to a schedule: a search as published, `s3` with some of its rungs, or the best of the
    published solvers.
    """

    label: str
    algorithm: str
    ladder: tuple[LadderRung, ...] = DEFAULT_LADDER
    only_largest: bool = False  # of the budgets

    @property
    def is_resumed(self) -> bool:
        """Whether the search of a smaller budget is the beginning of that of a larger one."""
        return self.algorithm != "s3"


def methods(algorithms: Sequence[str], *, ladder: bool) -> tuple[Method, ...]:
    """The published solvers and the searches named; with ``ladder`` also `s3` with its rungs added
    one by one.  Raises `InvalidConfig` for an unknown search.
    """
    for name in algorithms:
        if name not in ALGORITHMS:
            raise InvalidConfig(
                f"--algorithm: unknown algorithm {name!r}; {nearest(name, ALGORITHMS)}"
            )
    found = [Method(label=PUBLISHED, algorithm="random")]
    rungs = DEFAULT_LADDER
    if ladder and "s3" in algorithms:
        found += [
            Method(
                label=_ladder_label(rungs[:n]),
                algorithm="s3",
                ladder=rungs[:n],
                only_largest=True,
            )
            for n in range(len(rungs))
        ]
    found += [Method(label=name, algorithm=name) for name in dict.fromkeys(algorithms)]
    return tuple(found)


def _ladder_label(rungs: Sequence[LadderRung]) -> str:
    return f"s3 up to {rungs[-1].value}" if rungs else "s3 without ladder"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRun:
    """One number of the benchmark: what a method finds with one budget."""

    method: Method
    nfe: int
    seed: int
    budget: int | None  # measurements of search.n_images; None for the published solvers

    @property
    def study(self) -> str:
        """The name of the study; a resumed one has the numbers of all its budgets."""
        name = f"{self.method.label}, NFE {self.nfe}, seed {self.seed}"
        is_own = self.budget is not None and not self.method.is_resumed
        return f"{name}, budget {self.budget}" if is_own else name


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkPlan:
    """A whole benchmark on the model, metric and reference of ``base``."""

    base: StudyConfig
    folder: Path
    methods: tuple[Method, ...]
    nfe: tuple[int, ...]
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]

    def measurements(self) -> Iterator[BenchmarkRun]:
        """Seed by seed, so that an interrupted benchmark has all methods; the budgets of a method
        rise.
        """
        for seed in self.seeds:
            for nfe in sorted(set(self.nfe)):
                for method in self.methods:
                    for budget in self._budgets(method):
                        yield BenchmarkRun(method=method, nfe=nfe, seed=seed, budget=budget)

    def _budgets(self, method: Method) -> Sequence[int | None]:
        if method.label == PUBLISHED:
            return (None,)
        rising = sorted(set(self.budgets))
        return rising[-1:] if method.only_largest else rising

    def config(self, measurement: BenchmarkRun) -> StudyConfig:
        """The study of a measurement; raises `InvalidConfig`."""
        method, is_published = measurement.method, measurement.method.label == PUBLISHED
        data = self.base.model_dump(mode="json")
        data["study"] = {"name": measurement.study, "seed": measurement.seed}
        data["space"]["nfe"] = [measurement.nfe]
        data["search"] |= {
            "algorithm": method.algorithm,
            "ladder": list(method.ladder),
            "evaluations": measurement.budget,
            "wall_seconds": _NO_TIME if is_published else None,
            "gpu_seconds": None,
            "baselines": is_published or method.algorithm == "s3",
            "seeds": [],
        }
        data["validation"] |= {"finalists": 1, "baselines": is_published}
        data["storage"] = {"url": database_url(self.folder / f"nfe-{measurement.nfe}.db")}
        return parse_config(data, source="bench")


def databases(folder: Path) -> list[Path]:
    """One for each number of calls: processes with different numbers never meet."""
    return sorted(folder.glob("nfe-*.db"))


def database_url(file: Path) -> str:
    """How the study store names a file."""
    return f"sqlite:///{file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOptions:
    """What the command line says; what is empty or None follows from the study file."""

    nfe: tuple[int, ...] = ()
    n_seeds: int | None = None
    first_seed: int = 0
    budgets: tuple[int, ...] = ()
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    ladder: bool = True
    address: str | None = None
    sets: tuple[str, ...] = ()
    is_quick: bool = False


def make_plan(study: Path | None, folder: Path, choices: BenchmarkOptions) -> BenchmarkPlan:
    """The benchmark of a study file, or of the embedded digits model; raises `InvalidConfig`."""
    found = methods(choices.algorithms, ladder=choices.ladder)
    address = [] if choices.address is None else [f'cluster.address="{choices.address}"']
    quick = _QUICK if choices.is_quick else ()
    nfe = [f"space.nfe={[*choices.nfe]}"] if choices.nfe else []
    overrides = [*quick, *choices.sets, *address, *nfe]
    base = (
        config_from_text(DIGITS, "bench", overrides)
        if study is None
        else load_config(study, overrides)
    )
    check_address(base.cluster.address)
    n_seeds = choices.n_seeds or (1 if choices.is_quick else DEFAULT_SEEDS)
    return BenchmarkPlan(
        base=base,
        folder=folder,
        methods=found,
        nfe=base.space.nfe[:1] if choices.is_quick and not choices.nfe else base.space.nfe,
        seeds=tuple(range(choices.first_seed, choices.first_seed + n_seeds)),
        budgets=choices.budgets or _shares(base),
    )


def _shares(base: StudyConfig) -> tuple[int, ...]:
    largest = base.search.evaluations
    if not largest:
        raise InvalidConfig(
            "bench: the study file has no search.evaluations, and a benchmark needs budgets in "
            "evaluations; give some with --budget"
        )
    return tuple(max(1, largest // share) for share in _SHARES)
