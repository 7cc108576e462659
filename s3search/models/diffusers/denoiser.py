"""A pipeline's network as a denoiser D(x, t) on native-scale x.

    F = network(c x, timesteps(t), condition)      c = 1, or EDM's c_in
    D = a x + b F                             a, b by what the network predicts

with classifier-free guidance on F.  States keep their own dtype; only the network's input is cast
to the network's.  a and b are computed in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import EvaluationFailed
from s3search.models.diffusers.conditions import Given, Nothing, Source, filled_up
from s3search.models.diffusers.decoding import decoded, pixels_a_place
from s3search.models.diffusers.guidance import Combine, Guidance, from_null
from s3search.models.diffusers.memory import Parts
from s3search.models.diffusers.prompts import Prompts
from s3search.models.diffusers.scheduler_config import OwnSampler, PipelineModel
from s3search.models.outputs import Output
from s3search.solvers.shapes import Shape, over_the_rest, without_variance

_DECODED_PIXELS = 2**21  # of images decoded at once: a VAE holds a hundred times as many numbers

Answer = Callable[[Any, Tensor, Tensor, Given], Tensor]
"""(network, x (B, C, ..., H, W), timesteps (B,), arguments) -> F, with C or, for networks that
learn a variance, 2 C channels.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What of a pipeline makes images."""

    network: nn.Module
    answer: Answer
    source: Source
    sample_shape: Shape  # of the states: the latents' where there is a VAE
    vae: Any = None  # None: the network's samples are the images
    image_range: tuple[float, float] = (-1.0, 1.0)
    embeds_guidance: bool = False  # the network takes the scale, and nothing is doubled
    combine: Combine = from_null  # how it is guided where its batch is doubled
    adds_frame: bool = False  # the VAE takes a picture as a film of one frame
    n_tokens: int | None = None  # of a flow's images; they decide its shift


class PipelineDenoiser(nn.Module):
    """D(x, t, **condition) -> x0; made by `s3search.models.diffusers.load`."""

    def __init__(
        self,
        parts: Pipeline,
        model: PipelineModel,
        guidance: Guidance,
        own_sampler: OwnSampler | None,
        digest: bytes,
        *,
        pipeline: str | None = None,
    ) -> None:
        """``pipeline`` is the class that all this was taken from."""
        super().__init__()
        self.pipeline = pipeline
        self.own_sampler = own_sampler
        self.process = model.process
        self.sample_shape = parts.sample_shape
        self.network = parts.network
        self.vae = parts.vae
        self.guidance = guidance
        self._model = model
        self._answer = parts.answer
        self._source = parts.source
        self._image_range = parts.image_range
        self._adds_frame = parts.adds_frame
        self.takes_guidance = not parts.embeds_guidance and not isinstance(parts.source, Nothing)
        self._calls = Parts("the network")
        self._decodes = Parts("the VAE", _decoded_at_once(parts))
        # what is no parameter but decides the images; with the parameters it is fingerprinted
        self.register_buffer("digest", torch.tensor(list(digest), dtype=torch.uint8))

    @property
    def network_batches_per_call(self) -> int:
        """The most batches that one call sends through the network."""
        return 2 if self.guidance.is_on else 1

    def network_batches(self, times: Sequence[float]) -> int:
        """Batches that calls at these times send through the network."""
        return self.guidance.network_batches(times)

    @property
    def output(self) -> Output | None:
        """What the network's answer is taken for; None where EDM's scales are around it."""
        return self._model.output if self._model.sigma_data is None else None

    def condition(
        self, n: int, generator: torch.Generator, held_out: bool = False
    ) -> dict[str, Tensor]:
        """What ``n`` images are conditioned on; prompts of the search, or the held-out ones."""
        return self._source.condition(n, generator, held_out=held_out, device=self._device)

    @property
    def captions(self) -> Callable[..., list[str]] | None:
        """From a condition to the texts that images were asked for by; None without prompts."""
        return self._source.texts if isinstance(self._source, Prompts) else None

    def with_guidance(self, scales: Sequence[float]) -> "GuidedCalls":
        """This network for one trajectory, its call j guided with ``scales[j]``; raises
        `EvaluationFailed` for a network that is not guided by a doubled batch.
        """
        if not self.takes_guidance:
            raise EvaluationFailed(
                "model_patch.guidance_scale: this network has no null condition to be guided away "
                "from; remove the key from the schedule"
            )
        return GuidedCalls(self, scales)

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The clean image, or latent, expected behind ``x``, in the dtype of ``x``."""
        return self.guided(x, t, self.guidance, **condition)

    def guided(self, x: Tensor, t: Tensor, guidance: Guidance, **condition: Tensor) -> Tensor:
        """`forward` with another guidance."""
        wide = t.double()
        alpha, sigma = self.process.alpha(wide), self.process.sigma(wide)
        seen = x
        if self._model.sigma_data is not None:
            c_in = (sigma * sigma + self._model.sigma_data**2) ** -0.5
            seen = x * over_the_rest(c_in, x)
        f = self._calls(
            len(x), lambda own: self._network(seen[own], t[own], _of(condition, own), guidance)
        )
        a, b = self._model.weights(alpha, sigma)
        return over_the_rest(a, x) * x + over_the_rest(b, x) * f

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        """From latents to images in [-1, 1]; None where the samples are images."""
        if self.vae is not None:
            return self._decoded
        return None if self._image_range == (-1.0, 1.0) else self._rescaled

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _network(self, x: Tensor, t: Tensor, condition: Given, guidance: Guidance) -> Tensor:
        """F in the dtype of ``x``, guided."""
        own = next(self.network.parameters())
        given = self._source.given(condition, negative=False, device=own.device)
        timesteps = self._model.timesteps(t)

        def plain() -> Tensor:
            return self._cut(x, self._answer(self.network, x.to(own.dtype), timesteps, given))

        def doubled() -> Tensor:
            null = self._source.given(condition, negative=True, device=own.device)
            both = {n: torch.cat(filled_up([null[n], given[n]], axis=1)) for n in given}
            twice = torch.cat([x, x])
            at = torch.cat([timesteps, timesteps])
            answer = self._answer(self.network, twice.to(own.dtype), at, both)
            return self._cut(x, answer)

        return guidance.answer(t, plain, doubled)

    def _cut(self, x: Tensor, answer: Tensor) -> Tensor:
        """The answer without the variance that the network may have learned."""
        return without_variance(answer, x).to(x.dtype)

    def _decoded(self, latents: Tensor) -> Tensor:  # (B, c, ..., h, w) -> (B, C, ..., H, W)
        def some(own: slice) -> Tensor:
            return decoded(self.vae, latents[own], adds_frame=self._adds_frame)

        return self._decodes(len(latents), some)

    def _rescaled(self, images: Tensor) -> Tensor:
        low, high = self._image_range
        return (images - low) * (2 / (high - low)) - 1


class GuidedCalls:
    """A denoiser whose calls, in their order, are guided with their own scales."""

    def __init__(self, denoiser: PipelineDenoiser, scales: Sequence[float]) -> None:
        self.process = denoiser.process
        self.sample_shape = denoiser.sample_shape
        self._denoiser = denoiser
        self._scales = tuple(scales)
        self._made = 0

    def __call__(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The answer of the next call; there are as many as scales."""
        own = self._denoiser.guidance
        guidance = replace(own, scale=self._scales[self._made], interval=None)
        self._made += 1
        return self._denoiser.guided(x, t, guidance, **condition)

    def network_batches(self, times: Sequence[float]) -> int:
        """Batches that all the calls together send through the network."""
        return sum(2 if scale != 1.0 else 1 for scale in self._scales)


def _of(condition: Given, part: slice) -> dict[str, Tensor]:
    return {name: values[part] for name, values in condition.items()}


def _decoded_at_once(parts: Pipeline) -> int | None:
    if parts.vae is None:
        return None
    places = math.prod(parts.sample_shape[1:])
    return max(1, _DECODED_PIXELS // (places * pixels_a_place(parts.vae)))
