"""What a model is, without making an image: its process, its condition, its blocks, their cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from s3search.errors import InvalidSchedule
from s3search.evaluation.spec import EvaluatorSpec, load_model
from s3search.models.layer_skip import blocks_of
from s3search.models.skip_scale import links_of
from s3search.processes import NoiseProcess
from s3search.schedules.layers import Layers, skipped_by_call
from s3search.schedules.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A model as a search meets it."""

    loader: str
    process: NoiseProcess
    sample_shape: tuple[int, ...]
    n_parameters: int | None  # None: no torch module, and no blocks
    condition: Mapping[str, tuple[int, ...]]  # shapes for a single image
    takes_guidance: bool
    layers: Layers | None
    n_links: int  # skip connections that may be scaled

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a block's share is of a call's multiply-adds."""
        layers = self.layers
        return {
            "loader": self.loader,
            "process": self.process.model_dump(mode="json"),
            "sample_shape": list(self.sample_shape),
            "n_parameters": self.n_parameters,
            "condition": {name: list(shape) for name, shape in self.condition.items()},
            "takes_guidance": self.takes_guidance,
            "n_skip_connections": self.n_links,
            "multiply_adds": None if layers is None else layers.multiply_adds,
            "blocks": [
                {"index": i, **asdict(layer), "share": layers.share(i)}
                for i, layer in enumerate(layers.layers)
            ]
            if layers is not None
            else [],
        }

    def costs(self, schedule: Schedule) -> list[tuple[tuple[int, ...], float]]:
        """For each network call, the blocks left out and what is left to pay, in NFE-equivalents;
        raises `InvalidSchedule` for blocks that are not there.
        """
        if not schedule.process.same_levels(self.process):
            raise InvalidSchedule(
                f"process: this is a schedule for {schedule.process!r}, "
                f"the model has {self.process!r}"
            )
        layers = self.layers or Layers(multiply_adds=1, layers=())
        problem = layers.problem(schedule)
        if problem is not None:
            raise InvalidSchedule(problem)
        return [(skipped, layers.call_cost(skipped)) for skipped in skipped_by_call(schedule)]


def inspect_model(spec: EvaluatorSpec) -> Inspection:
    """Loads the model alone and, where it is a torch module, calls it on one image."""
    denoiser = load_model(spec)
    is_module = isinstance(denoiser, torch.nn.Module)
    condition: Mapping[str, Any] = {}
    if hasattr(denoiser, "condition"):
        condition = denoiser.condition(1, torch.Generator().manual_seed(0))
    return Inspection(
        loader=spec.model,
        process=denoiser.process,
        sample_shape=tuple(denoiser.sample_shape),
        n_parameters=sum(p.numel() for p in denoiser.parameters()) if is_module else None,
        condition={name: tuple(value.shape) for name, value in condition.items()},
        takes_guidance=getattr(denoiser, "takes_guidance", False),
        layers=blocks_of(denoiser).layers if is_module else None,
        n_links=len(links_of(denoiser)),
    )
