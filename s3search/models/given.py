"""A network and what it does not say of itself, as one denoiser."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from s3search.processes import NoiseProcess


class GivenDenoiser(nn.Module):
    """Any callable D(x, t, **condition) -> x0, told its process and the shape of its images.

    The callable itself is called, never a copy.  What else it has (``condition``, ``decode``) is
    found here too.

    >>> denoiser = GivenDenoiser(network, edm(), (3, 32, 32))
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        process: NoiseProcess,
        sample_shape: tuple[int, int, int],  # (C, H, W)
    ) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.sample_shape = sample_shape

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The network's own answer, shape and dtype of ``x``."""
        return self.network(x, t, **condition)

    def __getattr__(self, name: str) -> Any:
        """Attributes that only the network has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network" or name.startswith("__"):  # while it is made, or unpickled
                raise
            return getattr(self.network, name)
