"""The network inside a denoiser, asked at other times than the denoiser asks it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from s3search.evaluation.fingerprints import modules_of

Times = Callable[[Tensor], Tensor]
"""What a network reads for the process's times (B,)."""


def network_in(denoiser: Any, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Any:
    """The innermost module that the denoiser calls with states like ``x`` and a time for each,
    None where there is no such; costs one call.
    """
    found: list[nn.Module] = []

    def look(module: nn.Module, args: Any, kwargs: Any) -> None:
        values = [*args, *kwargs.values()]
        has_states = any(isinstance(v, Tensor) and v.shape[1:] == x.shape[1:] for v in values)
        if module is not denoiser and has_states and any(map(_is_time, values)):
            found.append(module)

    inside = (each for outer in modules_of(denoiser) for each in outer.modules())
    with _hooked(inside, look):
        denoiser(x, t, **condition)
    return found[-1] if found else None


class Retimed:
    """A denoiser whose network reads other times; its own arithmetic stays as it is."""

    def __init__(self, denoiser: Any, network: nn.Module, times: Times) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self._denoiser, self._network, self._times = denoiser, network, times

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        time = self._times(t[:1].double())

        def change(_: nn.Module, args: Any, kwargs: Any) -> Any:
            names = [*range(len(args)), *kwargs]
            values = dict(zip(names, [*args, *kwargs.values()], strict=True))
            name = next(each for each in names if _is_time(values[each]))
            values[name] = time.to(x).expand(values[name].shape)
            return tuple(values[i] for i in range(len(args))), {k: values[k] for k in kwargs}

        with _hooked([self._network], change):
            return self._denoiser(x, t, **condition)  # type: ignore[no-any-return]


def _is_time(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 1 and value.dtype != torch.bool


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield
