# ruff: noqa: PLC0415  # diffusers is imported where it is used: workers import this
"""Pipelines of classes that no library has, as somebody writes one next year."""

from typing import Any

import torch
from torch import Tensor

from tests.support import pipelines

COUNTED: list[str] = []  # texts that were encoded


def striped() -> Any:
    """A text-to-image pipeline of its own class: no ``latents``, tensors as its output."""
    from diffusers import DDIMScheduler, DiffusionPipeline

    class StripedPipeline(DiffusionPipeline):
        """Draws its noise with torch.randn and adds a stripe for each letter of a prompt."""

        def __init__(self, unet: Any, scheduler: Any) -> None:
            super().__init__()
            self.register_modules(unet=unet, scheduler=scheduler)

        def encode_prompt(self, prompt: list[str]) -> Tensor:
            COUNTED.extend(prompt)
            return torch.tensor([float(len(text)) for text in prompt])

        @torch.no_grad()
        def __call__(self, prompt: list[str], num_inference_steps: int = 50) -> tuple[Tensor]:
            stripes = self.encode_prompt(prompt)[:, None, None, None] / 10
            x = torch.randn(len(prompt), 3, 8, 8) * self.scheduler.init_noise_sigma
            self.scheduler.set_timesteps(num_inference_steps, device=x.device)
            for t in self._times():
                seen = self.scheduler.scale_model_input(x, t)
                answer = self.unet(seen, t).sample + stripes
                x = self._stepped(answer, t, x)
            return (x,)

        def _times(self) -> Any:
            return self.scheduler.timesteps

        def _stepped(self, answer: Tensor, t: Tensor, x: Tensor) -> Tensor:
            return self.scheduler.step(answer, t, x).prev_sample

    return StripedPipeline(pipelines.unet(), DDIMScheduler())


def changed(**methods: Any) -> Any:
    """The pipeline with other methods, in a class of its own."""
    pipe = striped()
    pipe.__class__ = type("ChangedPipeline", (type(pipe),), methods)
    return pipe


def shielded() -> Any:
    """A pipeline whose no_grad is deeper inside than its call."""

    def called(self: Any, prompt: list[str], num_inference_steps: int = 50) -> Any:
        return super(type(self), self).__call__(prompt, num_inference_steps)

    return changed(__call__=called)
