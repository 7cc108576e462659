"""Every scheduler class of diffusers that is known here, the keys of its config, and what becomes
of it.

diffusers reads of a config what the class's constructor names, at that constructor's defaults
where the config is silent, and passes over keys of its other classes, which files keep that were
made for another one.  So does `values_of`; a key that no known class has is refused by its name,
for nobody here knows what it changes.  A test compares classes and defaults with the installed
library.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.models.diffusers.scheduler_keys import ALSO_READ, check_keys


class Kind(StrEnum):
    """What a class's noise levels are made of."""

    BETAS = "betas"  # a table of betas; a flow where `use_flow_sigmas` says so
    FLOW = "flow"  # x = (1 - t) x_0 + t noise
    EDM = "edm"  # sigmas, with EDM's preconditioning
    SCORE = "score"  # sigmas, without it
    OTHER = "other"  # none of these


class Fate(StrEnum):
    """What becomes of a scheduler."""

    IMPORTED = "imported"  # its config becomes a schedule
    REPLAYED = "replayed"  # no schedule of its own, but its pipeline runs ours
    REFUSED = "refused"  # neither


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerClass:
    """One class: its constructor's keys with their defaults, and what becomes of it and why.

    ``adds_noise`` tells those whose steps add noise whatever their config says; ``handed_on`` are
    keys, with defaults, that it hands to the class that makes its levels.
    """

    kind: Kind
    defaults: Mapping[str, Any]
    fate: Fate
    reason: str = ""  # why it is not imported
    adds_noise: bool = False
    handed_on: Mapping[str, Any] = field(default_factory=dict)


_TABLE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_LDM_BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
_SPACING = {"timestep_spacing": "linspace", "steps_offset": 0}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_DYNAMIC = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_LEVELS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_ON_FLOWS = {"use_flow_sigmas": False, "flow_shift": 1.0}
_SHIFT = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_CLIPPED = {"lambda_min_clipped": -math.inf, "variance_type": None}
_DPM = {"solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint"}
_ENDS = {"lower_order_final": True, "euler_at_final": False, "final_sigmas_type": "zero"}

_DDIM = {
    **_TABLE, **_CLIP, **_DYNAMIC, **_LEADING, **_ZERO_SNR, "set_alpha_to_one": True,
}  # fmt: skip
_DDPM = {
    **_TABLE, **_CLIP, **_DYNAMIC, **_LEADING, **_ZERO_SNR, "variance_type": "fixed_small",
}  # fmt: skip
_COGVIDEOX = {
    **_TABLE, **_LDM_BETAS, **_CLIP, **_LEADING, **_ZERO_SNR,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": True,
    "sample_max_value": 1.0,
    "snr_shift_scale": 3.0,
}  # fmt: skip
_DISTILLED = {
    **_DDIM, **_LDM_BETAS,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
}  # fmt: skip
_FLOW = {
    **_SHIFT, **_LEVELS,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
}  # fmt: skip
_EDM = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
_KDPM2 = {**_TABLE, **_LDM_BETAS, **_LEVELS, **_SPACING}

_NOISY = "adds noise at every step, in a way of its own"
_RISES = "its times rise from image to noise; schedules fall"
_TOKENS = "generates discrete tokens; there is no noise level to schedule"
_OWN_BETAS = "its levels are a formula of its own that no config key tells"


def _imported(kind: Kind, defaults: Mapping[str, Any]) -> SchedulerClass:
    return SchedulerClass(kind=kind, defaults=defaults, fate=Fate.IMPORTED)


def _noisy(
    kind: Kind, defaults: Mapping[str, Any], handed_on: Mapping[str, Any] | None = None
) -> SchedulerClass:
    """An imported class whose steps add noise."""
    return SchedulerClass(
        kind=kind,
        defaults=defaults,
        fate=Fate.IMPORTED,
        adds_noise=True,
        handed_on=handed_on or {},
    )


def _replayed(kind: Kind, defaults: Mapping[str, Any], reason: str) -> SchedulerClass:
    return SchedulerClass(
        kind=kind, defaults=defaults, fate=Fate.REPLAYED, reason=reason, adds_noise=True
    )


def _refused(reason: str) -> SchedulerClass:
    return SchedulerClass(kind=Kind.OTHER, defaults={}, fate=Fate.REFUSED, reason=reason)


CLASSES: Mapping[str, SchedulerClass] = {
    "DDIMScheduler": _imported(Kind.BETAS, _DDIM),
    "DDIMParallelScheduler": _imported(Kind.BETAS, _DDIM),
    "CogVideoXDDIMScheduler": _imported(Kind.BETAS, _COGVIDEOX),
    "DPMSolverMultistepScheduler": _imported(
        Kind.BETAS,
        {
            **_TABLE, **_DPM, **_ENDS, **_DYNAMIC, **_LEVELS, **_ON_FLOWS, **_CLIPPED, **_SPACING,
            **_ZERO_SNR, **_SHIFT, "use_lu_lambdas": False,
        },
    ),
    "DPMSolverSinglestepScheduler": _imported(
        Kind.BETAS,
        {
            **_TABLE, **_DPM, **_DYNAMIC, **_LEVELS, **_ON_FLOWS, **_CLIPPED, **_SHIFT,
            "lower_order_final": False, "final_sigmas_type": "zero",
        },
    ),
    "EDMDPMSolverMultistepScheduler": _imported(
        Kind.EDM, {**_EDM, **_DPM, **_ENDS, **_DYNAMIC}
    ),
    "UniPCMultistepScheduler": _imported(
        Kind.BETAS,
        {
            **_TABLE, **_DYNAMIC, **_LEVELS, **_ON_FLOWS, **_SPACING, **_ZERO_SNR, **_SHIFT,
            "solver_order": 2,
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "disable_corrector": (),
            "solver_p": None,
            "final_sigmas_type": "zero",
            "sigma_min": None,
            "sigma_max": None,
            "shift_terminal": None,
        },
    ),
    "DEISMultistepScheduler": _imported(
        Kind.BETAS,
        {
            **_TABLE, **_DYNAMIC, **_LEVELS, **_ON_FLOWS, **_SPACING, **_SHIFT,
            "solver_order": 2,
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "lower_order_final": True,
        },
    ),
    "PNDMScheduler": _imported(
        Kind.BETAS, {**_TABLE, **_LEADING, "skip_prk_steps": False, "set_alpha_to_one": False}
    ),
    "EulerDiscreteScheduler": _imported(
        Kind.BETAS,
        {
            **_TABLE, **_LEVELS, **_SPACING, **_ZERO_SNR,
            "interpolation_type": "linear",
            "sigma_min": None,
            "sigma_max": None,
            "timestep_type": "discrete",
            "final_sigmas_type": "zero",
        },
    ),
    "EDMEulerScheduler": _imported(Kind.EDM, _EDM),
    "HeunDiscreteScheduler": _imported(
        Kind.BETAS, {**_KDPM2, "clip_sample": False, "clip_sample_range": 1.0}
    ),
    "KDPM2DiscreteScheduler": _imported(Kind.BETAS, _KDPM2),
    "LMSDiscreteScheduler": _imported(Kind.BETAS, {**_TABLE, **_LEVELS, **_SPACING}),
    "FlowMatchEulerDiscreteScheduler": _imported(
        Kind.FLOW, {**_FLOW, "stochastic_sampling": False}
    ),
    "FlowMatchHeunDiscreteScheduler": _imported(
        Kind.FLOW, {"num_train_timesteps": 1000, "shift": 1.0}
    ),
    "DDPMScheduler": _noisy(Kind.BETAS, _DDPM),
    "DDPMParallelScheduler": _noisy(Kind.BETAS, _DDPM),
    "CogVideoXDPMScheduler": _replayed(Kind.BETAS, _COGVIDEOX, _NOISY),
    "DPMSolverSDEScheduler": _noisy(Kind.BETAS, {**_KDPM2, "noise_sampler_seed": None}),
    "EulerAncestralDiscreteScheduler": _noisy(
        Kind.BETAS, {**_TABLE, **_SPACING, **_ZERO_SNR}
    ),
    "KDPM2AncestralDiscreteScheduler": _noisy(Kind.BETAS, _KDPM2),
    "SASolverScheduler": _noisy(
        Kind.BETAS,
        {
            **_TABLE, **_DYNAMIC, **_LEVELS, **_ON_FLOWS, **_CLIPPED, **_SPACING,
            "predictor_order": 2,
            "corrector_order": 2,
            "tau_func": None,
            "algorithm_type": "data_prediction",
            "lower_order_final": True,
        },
    ),
    "LCMScheduler": _noisy(Kind.BETAS, _DISTILLED),
    "TCDScheduler": _noisy(Kind.BETAS, _DISTILLED),
    "FlowMatchLCMScheduler": _noisy(
        Kind.FLOW, {**_FLOW, "scale_factors": None, "upscale_mode": "bicubic"}
    ),
    "ScoreSdeVeScheduler": SchedulerClass(
        kind=Kind.SCORE,
        defaults={
            "num_train_timesteps": 2000,
            "snr": 0.15,
            "sigma_min": 0.01,
            "sigma_max": 1348.0,
            "sampling_eps": 1e-05,
            "correct_steps": 1,
        },
        fate=Fate.REFUSED,
        reason=f"{_NOISY} (a search reads its levels; its pipeline calls step_correct, which no "
        "schedule has)",
        adds_noise=True,
    ),
    "CosineDPMSolverMultistepScheduler": _refused(
        "its network is told atan(sigma) (Stable Audio), which is no model here"
    ),
    "DDIMInverseScheduler": _refused(_RISES),
    "DPMSolverMultistepInverseScheduler": _refused(_RISES),
    "RePaintScheduler": _refused("goes back and forth between the levels to fill in a mask"),
    "UnCLIPScheduler": _refused(
        "is told the previous timestep by its pipeline, and adds noise at every step"
    ),
    "IPNDMScheduler": _refused(_OWN_BETAS),
    "DDPMWuerstchenScheduler": _refused(_OWN_BETAS),
    "ConsistencyDecoderScheduler": _refused(_OWN_BETAS),
    "CMStochasticIterativeScheduler": _refused(
        "samples consistency models, which answer with the image and add noise between calls"
    ),
    "SCMScheduler": _refused("runs TrigFlow models (angles, not noise levels) and adds noise"),
    "KarrasVeScheduler": _refused(_NOISY),
    "ScoreSdeVpScheduler": _refused(_NOISY),
    "FlowMapEulerDiscreteScheduler": _refused(
        "runs flow maps, which are told where a step starts and where it ends"
    ),
    "HeliosScheduler": _refused("runs a pyramid of sizes with noise between its stages"),
    "HeliosDMDScheduler": _refused("runs a pyramid of sizes with noise between its stages"),
    "LTXEulerAncestralRFScheduler": _noisy(
        Kind.FLOW, {"num_train_timesteps": 1000, "eta": 1.0, "s_noise": 1.0}, handed_on=_FLOW
    ),
    "MiniMaxH3Scheduler": _refused(
        "knows its levels from its pipeline alone; its config has a shift and nothing else"
    ),
    "PiflowScheduler": _refused("integrates a policy that the network answers between two calls"),
    "RFD4ProteinaScheduler": _refused("moves coordinates of proteins by a rule of its own"),
    "AmusedScheduler": _refused(_TOKENS),
    "BlockRefinementScheduler": _refused(_TOKENS),
    "DiscreteDDIMScheduler": _refused(_TOKENS),
    "EntropyBoundScheduler": _refused(_TOKENS),
    "VQDiffusionScheduler": _refused(_TOKENS),
}  # fmt: skip
"""By name, in the order of docs/importers.md."""


def class_named(name: str) -> SchedulerClass:
    """The class of this name; raises `InvalidConfig` for one that is not known and
    `InvalidSchedule`, with the reason, for one that nothing here can run.
    """
    if name not in CLASSES:
        raise InvalidConfig(f"_class_name: {name!r} is not known; {nearest(name, CLASSES)}")
    found = CLASSES[name]
    if found.kind is Kind.OTHER:
        raise InvalidSchedule(f"{name}: {found.reason}")
    return found


def values_of(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What diffusers reads of a config that is given to the class ``name``: every key of its
    constructor, at the default where the config has none; raises `InvalidConfig` for a key that
    no class has.
    """
    known = class_named(name)
    check_keys(config)
    own = {**known.handed_on, **known.defaults}
    read = {*own, *ALSO_READ}
    given = {key: value for key, value in config.items() if key in read and value is not None}
    return {**own, **given}


def classes_that_fit(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that a config without `_class_name` may be of: of those whose every key it has
    the ones with most keys, else those that have its every key.
    """
    check_keys(config)
    keys = {key for key in config if not key.startswith("_")}
    readable = {name: own for name, own in CLASSES.items() if own.kind is not Kind.OTHER}
    whole = {name: len(own.defaults) for name, own in readable.items() if keys >= {*own.defaults}}
    if whole:
        return _most(whole)
    part = keys - {*ALSO_READ}
    return tuple(
        name
        for name, own in readable.items()
        if part <= {*own.defaults} and (name not in _NEVER_MEANT or _NEVER_MEANT[name] in part)
    )


_NEVER_MEANT = {
    "CogVideoXDDIMScheduler": "snr_shift_scale",
    "CogVideoXDPMScheduler": "snr_shift_scale",
}
"""Classes that no config means which leaves this key out and names no class."""


def _most(sizes: Mapping[str, int]) -> tuple[str, ...]:
    largest = max(sizes.values())
    return tuple(name for name, size in sizes.items() if size == largest)


def names_of(fates: Iterable[Fate]) -> tuple[str, ...]:
    """The classes with one of these fates."""
    wanted = {*fates}
    return tuple(name for name, own in CLASSES.items() if own.fate in wanted)
