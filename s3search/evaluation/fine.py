"""The fine solve of a noise: what a schedule of few calls should come near to."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from s3search.evaluation.decoding import images_of
from s3search.evaluation.memory import BatchSize
from s3search.processes import NoiseProcess
from s3search.schedules import published
from s3search.search.questions import FINE_NFE
from s3search.solvers.plan import Plan, compile_plan
from s3search.solvers.sample import sample

FineSolve = Callable[[Tensor, dict[str, Tensor]], Tensor]
"""Noise (b, C, H, W) and conditions -> images (b, C, H, W)."""


def fine_plan(process: NoiseProcess, nfe: int = FINE_NFE) -> Plan:
    """DPM-Solver++(2M) with many calls, which ends with the clean image."""
    end = published.End(rule=published.EndRule.DENOISE)
    return compile_plan(published.dpmpp_2m(process, nfe=nfe, end=end))


def fine_solver(denoiser: Any, batch_size: int) -> FineSolve:
    """What many calls of a denoiser make of noise, in batches that the memory takes."""
    plan, fits = fine_plan(denoiser.process), BatchSize(batch_size, "solving finely")

    @torch.inference_mode()
    def made(noise: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return images_of(denoiser, sample(denoiser, plan, noise, **condition))

    return lambda noise, condition: fits.over(made, noise, condition)
