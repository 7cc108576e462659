"""A network and what it does not say of itself, as one denoiser."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from s3search.processes import NoiseProcess
from s3search.solvers.sample import Denoiser
from s3search.solvers.shapes import Shape


def given_denoiser(
    network: Callable[..., Tensor], process: NoiseProcess, sample_shape: Shape
) -> Denoiser:
    """Any callable D(x, t, **condition) -> x0 with its process and the shape of its samples.

    The callable itself is called, never a copy; of a module a module is made.  What else it has
    (``condition``, ``decode``) is found on the denoiser too.

    >>> denoiser = given_denoiser(network, edm(), (3, 32, 32))
    """
    kind = GivenModule if isinstance(network, nn.Module) else GivenCallable
    return kind(network, process, sample_shape)


class GivenCallable:
    """A callable that is no module, with its process and shape."""

    def __init__(
        self, network: Callable[..., Tensor], process: NoiseProcess, sample_shape: Shape
    ) -> None:
        self.network, self.process, self.sample_shape = network, process, sample_shape

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The callable's own answer, shape and dtype of ``x``."""
        return self.network(x, t, **condition)

    def __getattr__(self, name: str) -> Any:
        """Attributes that only the callable has."""
        return _of_network(self, name)


class GivenModule(nn.Module):
    """A module with its process and shape."""

    def __init__(
        self, network: Callable[..., Tensor], process: NoiseProcess, sample_shape: Shape
    ) -> None:
        super().__init__()
        self.network, self.process, self.sample_shape = network, process, sample_shape

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The module's own answer, shape and dtype of ``x``."""
        return self.network(x, t, **condition)

    def __getattr__(self, name: str) -> Any:
        """Attributes that only the module has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return _of_network(self, name)


def _of_network(denoiser: Any, name: str) -> Any:
    """Nothing while the denoiser is made, or unpickled, and has no network yet."""
    if name == "network" or name.startswith("__"):
        raise AttributeError(name)
    return getattr(denoiser.network, name)
