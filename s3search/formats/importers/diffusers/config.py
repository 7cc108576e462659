"""What a scheduler_config.json says."""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SDE = "sde-"
"""How the algorithm types that add noise begin."""


class SchedulerConfig(BaseModel):
    """What the schedulers' configs say that matters here; their other fields are the model's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_train_timesteps: int = Field(default=1000, ge=2)
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "linspace"
    steps_offset: int = 0
    lambda_min_clipped: float = -math.inf
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    interpolation_type: str = "linear"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    flow_shift: float = Field(default=1.0, gt=0)
    shift: float = Field(default=1.0, gt=0)
    shift_terminal: float | None = Field(default=None, ge=0, lt=1)
    use_dynamic_shifting: bool = False
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    mu: float | None = None  # that pipelines hand to a scheduler with a dynamic shift
    stochastic_sampling: bool = False
    sigma_schedule: Literal["karras", "exponential"] = "karras"
    sigma_min: float | None = Field(default=None, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)
    rho: float = Field(default=7.0, gt=0)
    set_alpha_to_one: bool = True
    skip_prk_steps: bool = False
    prediction_type: str = "epsilon"
    solver_order: int = Field(default=2, ge=1)
    algorithm_type: str = "dpmsolver++"
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    predict_x0: bool = True
    disable_corrector: tuple[int, ...] = ()
    solver_p: Any = None
    lms_order: int = Field(default=4, ge=1, le=4)  # diffusers takes it with every step
    eta: float | None = Field(default=None, ge=0)  # that a pipeline hands to every step
    s_noise: float = Field(default=1.0, ge=0)
    variance_type: str | None = None
    original_inference_steps: int = Field(default=50, ge=1)
    timestep_scaling: float = 10.0
    scale_factors: Any = None
    predictor_order: int = Field(default=2, ge=1)
    corrector_order: int = Field(default=2, ge=1)
    tau_func: Any = None
    thresholding: bool = False
    clip_sample: bool = False
    rescale_betas_zero_snr: bool = False

    @property
    def chooses_levels(self) -> bool:
        """Whether levels are chosen between two sigmas instead of by index."""
        return (
            self.use_karras_sigmas
            or self.use_exponential_sigmas
            or self.use_beta_sigmas
            or self.use_lu_lambdas
        )

    @property
    def is_sde(self) -> bool:
        """Whether DPM-Solver's steps add noise."""
        return self.algorithm_type.startswith(SDE)

    @property
    def ends_clean(self) -> bool:
        """Whether the last level is sigma = 0."""
        return self.final_sigmas_type == "zero"
