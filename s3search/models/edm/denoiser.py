r"""Denoisers around EDM's networks: our own, and one that came with its code.

The preconditioning of arXiv:2206.00364v2, Table 1, with s = sigma_data:

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)
    c_skip = s^2 / (sigma^2 + s^2)            c_in    = 1 / sqrt(sigma^2 + s^2)
    c_out  = sigma s / sqrt(sigma^2 + s^2)    c_noise = log(sigma) / 4
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from s3search.errors import InvalidConfig
from s3search.models.checkpoints import Labels, even_labels
from s3search.models.edm.unets import EdmConfig, network_of
from s3search.processes import Edm, edm
from s3search.solvers.shapes import over_the_rest

_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0  # of the paper's samplers, within what a network supports
_LEAST_SIGMA = 1e-8  # keeps log(sigma) finite at sigma = 0, where c_out is 0


class _Conditioned(nn.Module):
    """The process, the shape and the classes of a network for EDM's noise levels."""

    def __init__(self, config: Any, labels: Labels) -> None:
        super().__init__()
        if labels == "none" and config.label_dim:
            raise InvalidConfig(
                f"model.labels: the network was trained with {config.label_dim} classes and knows "
                "no image without one; leave labels out"
            )
        resolution = int(config.img_resolution)
        self.sample_shape = (int(config.img_channels), resolution, resolution)
        self.n_classes = int(config.label_dim)
        self.process: Edm = edm(
            max(_SIGMA_MIN, float(config.sigma_min)), min(_SIGMA_MAX, float(config.sigma_max))
        )

    def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The classes (n,) of ``n`` images, evenly drawn; nothing for a network without."""
        return {"labels": even_labels(n, self.n_classes, generator)} if self.n_classes else {}

    def _one_hot(self, x: Tensor, labels: Tensor | None) -> Tensor | None:
        if not self.n_classes:
            return None
        if labels is None:
            return torch.zeros(len(x), self.n_classes, device=x.device)
        return functional.one_hot(labels, self.n_classes).float()


class EdmDenoiser(_Conditioned):
    """D(x, sigma, labels) of our own networks, in whichever dtype its weights have."""

    def __init__(self, config: EdmConfig, labels: Labels = "uniform") -> None:
        super().__init__(config, labels)
        self._sigma_data = config.sigma_data
        self.model = network_of(config)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The clean image expected behind ``x``, in the dtype of ``x``."""
        inner = self.model.map_layer0.weight.dtype
        wide = torch.promote_types(x.dtype, torch.float32)
        sigma = over_the_rest(t, x.to(wide))
        total = torch.sqrt(sigma * sigma + self._sigma_data**2)
        c_skip, c_out = (self._sigma_data / total) ** 2, sigma * self._sigma_data / total
        c_noise = t.float().clamp(min=_LEAST_SIGMA).log() / 4
        f = self.model((x / total).to(inner), c_noise, self._one_hot(x, labels))
        return cast("Tensor", c_skip * x + c_out * f).to(x.dtype)


class PickledDenoiser(_Conditioned):
    """A network whose own code already answers D(x, sigma, class_labels)."""

    def __init__(self, net: nn.Module, labels: Labels = "uniform") -> None:
        super().__init__(net, labels)
        self.net = net

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The clean image expected behind ``x``, in the dtype of ``x``."""
        answer: Tensor = self.net(x, t, self._one_hot(x, labels))
        if answer.shape != x.shape:
            raise InvalidConfig(
                f"model.path: the pickled network answers {tuple(answer.shape)} for a state of "
                f"shape {tuple(x.shape)}; a denoiser keeps the shape"
            )
        return answer.to(x.dtype)
