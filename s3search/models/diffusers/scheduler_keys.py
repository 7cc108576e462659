"""Every config key of diffusers' schedulers that is known here, and what it means."""

from collections.abc import Mapping
from typing import Any

from s3search.errors import InvalidConfig, nearest

ALSO_READ = ("sigma_min", "sigma_max", "lms_order", "mu", "eta", "s_noise")
"""Keys that count though the constructor has them not: diffusers looks for the sigmas wherever
levels are chosen between two of them, takes the order of LMS, eta and s_noise with every step, and
mu with the number of steps."""

WITHOUT_EFFECT = ("tensor_format", "timestep_values")
"""Keys of diffusers before 0.10 that changed no image."""

KEYS: Mapping[str, str] = {
    "num_train_timesteps": "length of the training table",
    "beta_start": "first beta",
    "beta_end": "last beta",
    "beta_schedule": "how betas go from first to last",
    "trained_betas": "the betas themselves",
    "rescale_betas_zero_snr": "alpha shifted to end at zero",
    "snr_shift_scale": "divides the signal-to-noise ratio of every level",
    "prediction_type": "what the network answers",
    "timestep_type": "whether the network is told indices or log sigma / 4",
    "timestep_spacing": "which indices are visited",
    "steps_offset": "added to the indices of `leading`",
    "interpolation_type": "how sigma is read between indices",
    "set_alpha_to_one": "whether the last step ends at the clean image",
    "final_sigmas_type": "whether the last level is clean or the lowest of training",
    "use_karras_sigmas": "levels between two sigmas, by a power of 7",
    "use_exponential_sigmas": "levels between two sigmas, geometric",
    "use_beta_sigmas": "levels between two sigmas, by quantiles of a beta distribution",
    "use_lu_lambdas": "levels uniform in log(alpha / sigma)",
    "use_flow_sigmas": "the model is a flow",
    "flow_shift": "shift of a flow's levels",
    "shift": "shift of a flow's levels",
    "shift_terminal": "the last level but the clean one, which the others are stretched to",
    "use_dynamic_shifting": "the shift is told by the pipeline, by the image's size",
    "time_shift_type": "what a dynamic shift does with its number",
    "mu": "the number of a dynamic shift, which the pipeline tells",
    "base_shift": "dynamic shift of the least tokens",
    "max_shift": "dynamic shift of the most tokens",
    "base_image_seq_len": "the least tokens",
    "max_image_seq_len": "the most tokens",
    "invert_sigmas": "the model's time runs from noise 0 to image 1",
    "stochastic_sampling": "adds noise at every step",
    "sigma_min": "lowest level",
    "sigma_max": "highest level",
    "sigma_data": "EDM's preconditioning",
    "sigma_schedule": "EDM's levels: by a power of rho, or geometric",
    "rho": "the power of EDM's levels",
    "snr": "size of the corrector's steps (Score SDE)",
    "sampling_eps": "last time (Score SDE)",
    "correct_steps": "corrector's steps per level (Score SDE)",
    "solver_order": "order of the solver",
    "lms_order": "order of LMS, which is an argument of its step",
    "solver_type": "which of the solver's forms",
    "solver_p": "another solver as UniPC's predictor",
    "algorithm_type": "which prediction is extrapolated, and whether noise is added",
    "predict_x0": "which prediction UniPC extrapolates",
    "predictor_order": "order of SA-Solver's predictor",
    "corrector_order": "order of SA-Solver's corrector",
    "tau_func": "how much noise SA-Solver adds",
    "disable_corrector": "steps without UniPC's corrector",
    "lower_order_final": "whether short runs end at lower order",
    "euler_at_final": "whether the last step is Euler's",
    "skip_prk_steps": "whether PNDM leaves its Runge-Kutta steps out",
    "lambda_min_clipped": "leaves the noisiest levels out",
    "variance_type": "what else the network answers",
    "clip_sample": "clamps the estimate of the image",
    "clip_sample_range": "to what it is clamped",
    "thresholding": "dynamic thresholding of the estimate of the image",
    "dynamic_thresholding_ratio": "its quantile",
    "sample_max_value": "its largest value",
    "noise_sampler_seed": "seed of the noise that is added",
    "eta": "how much noise a step adds, of DDIM, TCD and LTX's ancestral steps",
    "s_noise": "multiplies the noise that a step adds",
    "original_inference_steps": "steps of the distilled network's teacher",
    "timestep_scaling": "boundary condition of a distilled network",
    "scale_factors": "sizes of the stages of a multi-scale sampler",
    "upscale_mode": "how one stage is enlarged to the next",
}
"""What each key of the classes above that are not refused means."""


def check_keys(config: Mapping[str, Any]) -> None:
    """Raises `InvalidConfig` for a key that no known class has."""
    for key in config:
        if key.startswith("_") or key in KEYS or key in WITHOUT_EFFECT:
            continue
        raise InvalidConfig(
            f"{key}: no scheduler that is known here has this key, and what it changes cannot be "
            f"told; {nearest(key, KEYS)}, or remove the key if it changes nothing"
        )
