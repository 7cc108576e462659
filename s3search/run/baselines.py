"""What a search has to beat: what people run who have not searched, first, then published solvers.

    stock       the pipeline's own scheduler on its own grid; every scheduler of diffusers with the
                pipeline's config (on ``edm`` k-diffusion's samplers on Karras' sigmas before them)
    published   the solvers of the literature at all spacings and ends
    variants    the stock solvers on the other spacings that they offer, on flows at other shifts

Two that make the same images count once, under the first of their names.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from s3search.formats.importers.diffusers import adds_noise
from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import Edm, Flow, NoiseProcess
from s3search.run.own_baselines import own_flow_solvers, own_scheduler_of_before
from s3search.run.schedulers import (
    own_scheduler,
    own_scheduler_without_noise,
    schedulers_of,
)
from s3search.schedules.published.baselines import (
    PublishedSchedule,
    published_solvers,
    published_solvers_of_before,
    usual_variant,
)
from s3search.schedules.published.k_diffusion import K_SAMPLERS, K_SIGMAS
from s3search.schedules.schedule import Schedule
from s3search.schedules.spacing import End
from s3search.search.trial import (
    Origin,
    Trial,
    distinct,
    of_library,
    of_pipeline,
    published_as,
)

_KARRAS, *_OTHER_SIGMAS = K_SIGMAS
_NO_LEVELS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
}
_LEVELS = {
    name: {**_NO_LEVELS, f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")
}
_INDICES = {
    name: {**_NO_LEVELS, "timestep_spacing": name} for name in ("leading", "trailing", "linspace")
}
_SHIFTS = (1.0, 3.0, 5.0)  # of rectified flows, of SD3 and of video models
_SHIFTED = {
    f"shift {shift:g}": {"use_dynamic_shifting": False, "shift": shift, "flow_shift": shift}
    for shift in _SHIFTS
}
_OF_EDM = {name: {"sigma_schedule": name} for name in ("karras", "exponential")}


@dataclass(frozen=True, kw_only=True)
class KnownBaselines:
    """The baselines of one number of network calls."""

    nfe: int
    stock: tuple[Trial, ...]  # different plans
    published: tuple[Trial, ...]
    others: tuple[Trial, ...]
    missing: Mapping[str, str] = field(default_factory=dict)  # stock solvers, and why

    @cached_property
    def usual(self) -> tuple[Trial, ...]:
        """The stock ones, then one of every published solver, at the spacing and end that are
        usual; different plans.
        """
        first: dict[str | None, Trial] = {}
        for trial in sorted(self.published, key=_strangeness):
            first.setdefault(trial.origin.solver, trial)
        return distinct([*self.stock, *first.values()])

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All with different plans, the `usual` first."""
        return distinct([*self.usual, *self.published, *self.others])

    def unmeasured(
        self, measured: Sequence[Trial], stopped: Mapping[Trial, float] | None = None
    ) -> list[Trial]:
        """One of each solver that has nothing among what was ``measured`` whole: the best of what
        was ``stopped`` early, by its distance then, else the `usual` one.
        """
        solvers = {trial.origin.solver for trial in measured if trial.nfe == self.nfe}
        keys = {trial.key for trial in measured}
        own = {trial.origin.solver for trial in (*self.stock, *self.published)}
        best: dict[str | None, Trial] = {}
        for trial, _ in sorted((stopped or {}).items(), key=lambda each: each[1]):
            if trial.nfe == self.nfe and trial.origin.solver in own - solvers:
                best.setdefault(trial.origin.solver, trial)
        usual = [
            trial
            for trial in self.usual
            if trial.origin.solver not in solvers | best.keys() and trial.key not in keys
        ]
        return [*best.values(), *usual]

    @property
    def note(self) -> dict[str, Any]:
        """What is kept of them in the study, so that claims can say of how many."""
        return {
            "nfe": self.nfe,
            "known": len(self.trials),
            "stock": [trial.origin.label for trial in self.stock],
            "solvers": list(dict.fromkeys(str(t.origin.solver) for t in self.published)),
            "missing": dict(self.missing),
        }


def known_baselines(
    own: OwnSampler | None,
    process: NoiseProcess,
    nfe: int,
    said: int | None = None,
    *,
    ends: Sequence[End] | None = None,
    noise: bool = False,
) -> KnownBaselines:
    """All baselines that make ``nfe`` calls; ``said``: the number of calls, where labels are to
    say it; ``ends`` of the published ones; ``noise``: those with noise in their steps as well.
    """
    stock, missing = stock_solvers(own, process, nfe, said, noise=noise)
    return KnownBaselines(
        nfe=nfe,
        stock=stock,
        published=tuple(_published(own, process, nfe, said, ends=ends, noise=noise)),
        others=tuple(_trials(_variants(own, process, nfe, said))),
        missing=missing,
    )


def baselines_of_before(
    own: OwnSampler | None, process: NoiseProcess, nfe: int, said: int | None = None
) -> KnownBaselines:
    """What a study knows that was begun before there were stock solvers: nothing comes first."""
    usual = [] if own is None else own_scheduler_of_before(own, process, nfe, said)
    published = [*_of_flow(own, process, nfe, said)]
    published += _trials_of(published_solvers_of_before(process, nfe), said)
    return KnownBaselines(nfe=nfe, stock=(), published=(), others=(*usual, *published))


def stock_solvers(
    own: OwnSampler | None,
    process: NoiseProcess,
    nfe: int,
    said: int | None = None,
    *,
    noise: bool = False,
) -> tuple[tuple[Trial, ...], dict[str, str]]:
    """The stock solvers alone, and why others of their names are not among them, which may be that
    they make the images of one of these; with ``noise`` the pipeline's own as it is, too, where it
    adds noise.
    """
    made = list(_stock(own, process, nfe, said, noise=noise))
    kept = distinct(_trials(made))
    names = {trial.key: trial.origin.label for trial in kept}
    missing = {origin.label: why for origin, why in made if isinstance(why, str)}
    for trial in _trials(made):
        if trial.origin.label != names[trial.key]:
            missing[trial.origin.label] = f"it makes the images of {names[trial.key]!r}"
    return kept, missing


def _published(
    own: OwnSampler | None,
    process: NoiseProcess,
    nfe: int,
    said: int | None,
    *,
    ends: Sequence[End] | None,
    noise: bool,
) -> list[Trial]:
    made = published_solvers(process, nfe, ends=ends, noise=noise)
    return [*_of_flow(own, process, nfe, said), *_trials_of(made, said)]


def _of_flow(
    own: OwnSampler | None, process: NoiseProcess, nfe: int, said: int | None
) -> list[Trial]:
    return [] if own is None else own_flow_solvers(own, process, nfe, said)


def _trials_of(made: Iterable[PublishedSchedule], said: int | None) -> list[Trial]:
    return [
        Trial.of(each.schedule, published_as(each.solver, each.variant, said)) for each in made
    ]


def _strangeness(trial: Trial) -> int:
    """How far a published schedule is from the spacing, end and beginning that are usual for its
    process: a sum of what differs, the spacing first.
    """
    spacing, *rest = str(trial.origin.variant).split(", ")
    usual, *usual_rest = usual_variant(trial.schedule.process).split(", ")
    return 4 * (spacing != usual) + 2 * (rest[:1] != usual_rest[:1]) + (rest[1:] != usual_rest[1:])


_Made = Iterator[tuple[Origin, Schedule | str]]


def _trials(made: Iterable[tuple[Origin, Schedule | str]]) -> list[Trial]:
    return [Trial.of(own, origin) for origin, own in made if isinstance(own, Schedule)]


def _stock(
    own: OwnSampler | None, process: NoiseProcess, nfe: int, said: int | None, *, noise: bool
) -> _Made:
    """Every stock solver, or why there is none."""
    if own is not None:
        is_noisy = adds_noise(own.scheduler, own.config)
        if noise or not is_noisy:
            yield of_pipeline(own.scheduler, "", said), own_scheduler(own, process, nfe)
        if is_noisy:
            origin = of_pipeline(own.scheduler, "without its noise", said)
            yield origin, own_scheduler_without_noise(own, process, nfe)
    if isinstance(process, Edm):
        for name in K_SAMPLERS:
            origin = of_library("k-diffusion", name, nfe=said)
            yield origin, _k_sampler(name, _KARRAS, process, nfe)
    for name, made in schedulers_of(own, process, nfe).items():
        yield of_library("diffusers", name, nfe=said), made


def _variants(own: OwnSampler | None, process: NoiseProcess, nfe: int, said: int | None) -> _Made:
    """The stock solvers on the other levels that their users choose."""
    if isinstance(process, Edm):
        for name in K_SAMPLERS:
            for sigmas in _OTHER_SIGMAS:
                origin = of_library("k-diffusion", name, sigmas, said)
                yield origin, _k_sampler(name, sigmas, process, nfe)
    for variant, changes in _changes(process).items():
        for name, made in schedulers_of(own, process, nfe, changes).items():
            yield of_library("diffusers", name, variant, said), made


def _changes(process: NoiseProcess) -> Mapping[str, Mapping[str, Any]]:
    """Keys of a scheduler's config for every variant."""
    match process:
        case Edm():
            return _OF_EDM
        case Flow():
            return _SHIFTED | _LEVELS
    return _INDICES | _LEVELS


def _k_sampler(name: str, sigmas: str, process: Edm, nfe: int) -> Schedule | str:
    """The sampler on as many sigmas as make ``nfe`` calls, or why there are none."""
    for n in range(nfe, 0, -1):
        schedule = K_SAMPLERS[name].make(process, K_SIGMAS[sigmas](n, process))
        if schedule.nfe == nfe:
            return schedule
    return f"no number of its steps makes {nfe} calls"
