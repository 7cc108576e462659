"""The fine solve of a noise: what a schedule of few calls should come near to."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from s3search.evaluation.decoding import images_by
from s3search.evaluation.memory import BatchSize
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.record import SolvesReply
from s3search.processes import NoiseProcess
from s3search.schedules import published
from s3search.search.questions import FINE_NFE, FineSolves
from s3search.solvers.plan import Plan, compile_plan


def fine_plan(process: NoiseProcess, nfe: int = FINE_NFE) -> Plan:
    """DPM-Solver++(2M) with many calls, which ends with the clean image."""
    end = published.End(rule=published.EndRule.DENOISE)
    return compile_plan(published.dpmpp_2m(process, nfe=nfe, end=end))


@dataclass
class FineSolver:
    """What many calls of a denoiser make of noise, in batches that the memory takes."""

    denoiser: Any
    batch_size: int
    nfe: int = FINE_NFE
    n_solved: int = 0  # images
    _fits: BatchSize = field(init=False)
    _plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self._fits = BatchSize(self.batch_size, "solving finely")
        self._plan = fine_plan(self.denoiser.process, self.nfe)

    @property
    def name(self) -> str:
        """Different for all solvers that make other images."""
        return f"DPM-Solver++(2M), {self.nfe} calls, {self.denoiser.process!r}"

    def __call__(self, noise: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Images (b, ...) of noise (b, ...) and conditions (b, ...)."""
        made = self._fits.over(self._solved, noise, condition)
        self.n_solved += len(noise)
        return made

    @torch.inference_mode()
    def _solved(self, noise: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return images_by(self.denoiser, self._plan, noise, condition)


def solved_ahead(denoiser: Any, noise: NoiseBank, asked: FineSolves) -> SolvesReply:
    """Makes what images will be compared with, as far as it is not kept."""
    made = noise.solve(asked.noise_seed, asked.first, asked.n_images, held_out=asked.held_out)
    calls = made * FINE_NFE * int(getattr(denoiser, "network_batches_per_call", 1))
    return SolvesReply(n_solved=made, network_calls=calls)
