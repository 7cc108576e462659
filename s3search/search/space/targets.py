"""Where a winner is to run, and what of a space can be expressed there exactly.

    any          wherever s3search's own loop runs
    diffusers    `S3Scheduler` in a pipeline of any class
    a class      `S3Scheduler` in that class's pipelines; "pipeline" is the model's own class
    k-diffusion  the exported sampler
    comfyui      the exported node
    sigmas       a list of noise levels for one of the program's own solvers

Everything in float64 up to where the program computes: a pipeline in half precision rounds the
network's times as it does with its own scheduler.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from s3search.errors import InvalidConfig, nearest
from s3search.models.diffusers.flows import FLOWS
from s3search.processes import Edm, Flow, NoiseProcess, VpDiscrete
from s3search.rules import Prediction, Taylor
from s3search.schedules.published.listed import listed_solver_of
from s3search.schedules.schedule import ModelPatch, Schedule, StartKind
from s3search.schedules.spacing import EndRule, begin_time, noisy_time
from s3search.search.space.config import SpaceConfig
from s3search.search.space.noise_ranges import NoiseRanges

ANY, OWN_PIPELINE = "any", "pipeline"

_UNIT_SLACK = 1e-4  # of a first state's scale where a pipeline begins with unit noise
_BELOW = 1e-3  # in lam, from the noisiest level


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What a program can do beside executing a table of steps."""

    scales_noise: bool = True  # it begins at any noise level, and not with unit noise
    maps_noise: bool = True  # it makes the first state itself: analytic starts
    jumps: bool = True
    statistics: bool = True  # weights per pixel, of v3 steps
    guidance: bool = True  # another scale for every call
    layers: bool = True  # blocks left out of calls
    whole_steps: bool = False  # networks of discrete processes know whole training steps alone
    listed: bool = False  # it runs solvers of its own on a list of levels
    below_noisiest: bool = False  # what begins at the noisiest level is scaled another way

    def first_time(self, process: NoiseProcess) -> float:
        """Where schedules begin: at the noisy end, or just below it."""
        noisiest = noisy_time(process)
        if not self.below_noisiest or isinstance(process, Flow):
            return noisiest
        if isinstance(process, VpDiscrete):
            return noisiest - 1.0
        return process.time_of_lam(process.lam(noisiest) + _BELOW)

    def first_times(self, process: NoiseProcess) -> tuple[float, ...]:
        """Where schedules may begin, the noisiest first: there, and at EDM's noisiest level where
        the process goes beyond it, at pure noise above all, where few rules have a value.
        """
        first, lower = self.first_time(process), begin_time(process)
        if lower is None or isinstance(process, Edm) or self.rounds(process):
            return (first,)
        is_unit = abs(process.sigma(lower) - 1.0) <= _UNIT_SLACK
        return (first, lower) if self.scales_noise or is_unit else (first,)

    def begins_with(self, noise_scale: float | None) -> bool:
        """Whether a start may say this scale of its noise."""
        return self.scales_noise or noise_scale is None or abs(noise_scale - 1.0) <= _UNIT_SLACK

    def rounds(self, process: NoiseProcess) -> bool:
        """Whether the times of calls are whole training steps."""
        return self.whole_steps and isinstance(process, VpDiscrete)


def _pipeline(*, scales_noise: bool, scales_input: bool, guides: bool = False) -> Runtime:
    return Runtime(
        scales_noise=scales_noise,
        maps_noise=scales_input,
        jumps=scales_input,
        guidance=guides,
        layers=False,
    )


_PLAIN = _pipeline(scales_noise=False, scales_input=False)
_LATENT = _pipeline(scales_noise=True, scales_input=True)
_GUIDED = _pipeline(scales_noise=True, scales_input=True, guides=True)

PIPELINE_CLASSES: dict[str, Runtime | None] = {
    "DDPMPipeline": _PLAIN,
    "DDIMPipeline": _PLAIN,
    "PNDMPipeline": _PLAIN,
    "ScoreSdeVePipeline": None,  # it calls steps that only its own scheduler has
    "LDMPipeline": _LATENT,
    "DiTPipeline": _pipeline(scales_noise=False, scales_input=True),
    "StableDiffusionPipeline": _GUIDED,
    "StableDiffusionXLPipeline": _GUIDED,
    "PixArtAlphaPipeline": _LATENT,
    "PixArtSigmaPipeline": _LATENT,
    **{
        name: _pipeline(scales_noise=False, scales_input=False, guides=entry.guides_calls)
        for name, entry in FLOWS.items()
    },
}
"""What pipelines of diffusers let a scheduler do; None: they run no scheduler but their own."""

RUNTIMES: dict[str, Runtime] = {
    ANY: Runtime(),
    "diffusers": _PLAIN,
    "k-diffusion": Runtime(jumps=False, statistics=False, layers=False),
    "comfyui": Runtime(
        jumps=False,
        statistics=False,
        guidance=False,
        layers=False,
        whole_steps=True,
        below_noisiest=True,
    ),
    "sigmas": Runtime(
        scales_noise=False,
        maps_noise=False,
        jumps=False,
        statistics=False,
        guidance=False,
        layers=False,
        whole_steps=True,
        listed=True,
    ),
    **{name: own for name, own in PIPELINE_CLASSES.items() if own is not None},
}
"""By their names; "pipeline" is none, but one of the classes."""


def runtime_of(target: str | None) -> Runtime:
    """The runtime of a target that is settled; where none is named, any."""
    return RUNTIMES[target or ANY]


def settled_target(asked: str | None, pipeline: str | None) -> str:
    """The target that a study searches for: the model's own ``pipeline``, a class of diffusers, or
    what any class can run where it is not known, unless another was asked for; raises
    `InvalidConfig` for a pipeline that there is not.
    """
    if asked not in (None, OWN_PIPELINE):
        return _known_target(asked)
    if pipeline is not None and PIPELINE_CLASSES.get(pipeline) is not None:
        return pipeline
    if pipeline is not None and pipeline not in PIPELINE_CLASSES:
        return "diffusers"
    if asked is None:
        return ANY
    found = "the model is no pipeline of diffusers"
    if pipeline is not None:
        found = f"a {pipeline} runs no scheduler but its own"
    raise InvalidConfig(
        f"space.target: 'pipeline' was asked, and {found}; use 'any', 'diffusers' or the class of "
        f"the pipeline that the schedule is for"
    )


def _known_target(name: str | None) -> str:
    names = (*RUNTIMES, OWN_PIPELINE)
    if name not in RUNTIMES:
        raise InvalidConfig(f"space.target: {name!r} is not known; {nearest(str(name), names)}")
    return str(name)


def narrowed(
    space: SpaceConfig, said: Collection[str] = ()
) -> tuple[SpaceConfig, tuple[str, ...]]:
    """``space`` with no more than its target can express, and the names of the fields that this
    changed; raises `InvalidConfig` where one of them was ``said`` in the study file.

    What is tied to the data stays where it is asked for by ``data_bound``.
    """
    runtime = runtime_of(space.target)
    changed = {
        name: value
        for name, value in _possible(space, runtime).items()
        if value != getattr(space, name)
    }
    for name, value in changed.items():
        if name in said:
            raise InvalidConfig(
                f"space.{name}: {_word(getattr(space, name))} was asked, and target = "
                f"{space.target!r} can express {_word(value)} only; leave the key out, or set "
                "target = 'any'"
            )
    return space.model_copy(update=changed), tuple(changed)


def _possible(space: SpaceConfig, runtime: Runtime) -> dict[str, Any]:
    """The fields that a runtime limits, as it can have them."""
    starts = space.starts
    if not space.data_bound:
        starts = tuple(kind for kind in starts if kind is not StartKind.AVERAGE_X0)
    if not runtime.maps_noise:
        starts = tuple(kind for kind in starts if kind is StartKind.NETWORK)
    possible: dict[str, Any] = {"starts": starts or (StartKind.NETWORK,)}
    if not runtime.jumps:
        possible["jump_sigma"] = None
    if not runtime.statistics:
        linear = tuple(each for each in space.predictions if each is not Prediction.V3)
        possible["predictions"] = linear
    if not runtime.guidance:
        possible["guidance"] = None
    if not runtime.layers:
        possible["cost"] = None
    if runtime.whole_steps:
        possible["network_shift"] = 0.0
    return possible | (_OF_LISTS if runtime.listed else {})


_OF_LISTS: dict[str, Any] = {
    "predictions": (Prediction.DATA,),
    "orders": (1,),
    "low_order_estimates": (),
    "relaxations": (None,),
    "correctors": (None,),
    "end_rules": (EndRule.DENOISE,),
    "families": (),
    "solvers": (Taylor.solver,),
    "start_points": (-1,),
    "compensations": (),
    "noise": NoiseRanges(),
}
"""What is left to choose beside the levels: nothing, the steps are the program's solver's."""


def objection(runtime: Runtime, schedule: Schedule, solver: str | None = None) -> str | None:
    """What of ``schedule`` the runtime cannot express, None if it can run it as it stands;
    ``solver`` is the one that a list is to be for, None: any.
    """
    start, process = schedule.start, schedule.process
    patch = schedule.model_patch or ModelPatch()
    noisiest = noisy_time(process)
    own = start.noise_scale or process.sigma(schedule.times[0])
    is_scaled = abs(own - 1.0) > _UNIT_SLACK
    checks = {
        "start": start.kind is not StartKind.NETWORK and not runtime.maps_noise,
        "start.jump": start.jump is not None and not runtime.jumps,
        "statistics": schedule.statistics is not None and not runtime.statistics,
        "model_patch.guidance_scale": patch.guidance_scale is not None and not runtime.guidance,
        "model_patch": not runtime.layers
        and (patch.skip_layers is not None or patch.skip_scale is not None),
        "start.noise_scale": not runtime.begins_with(start.noise_scale),
        "times[0]": (not runtime.scales_noise and schedule.times[0] != noisiest and is_scaled)
        or (runtime.below_noisiest and schedule.times[0] > runtime.first_time(process)),
        "times": runtime.rounds(process) and not _has_whole_steps(schedule),
        "steps": runtime.listed and listed_solver_of(schedule, solver) is None,
    }
    return next((field for field, is_problem in checks.items() if is_problem), None)


def _has_whole_steps(schedule: Schedule) -> bool:
    is_called = schedule.steps[-1].corrector is not None
    called = schedule.times if is_called else schedule.times[:-1]
    return all(t == round(t) for t in called) and not schedule.has_network_times


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join("none" if each is None else str(each) for each in value) + "]"
    return "none" if value is None else str(value)
