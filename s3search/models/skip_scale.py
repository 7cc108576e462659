"""Scaling the skip connections of a U-Net (USF, arXiv:2312.07243), one factor per link.

Links are numbered as the encoder makes them, the first convolution's picture first, as in USF's
released files; the factors are the same at every call.  A decoder block that takes a link gets it
beside its own picture: it is scaled there, by a hook, and the network itself stays as it is.

Three kinds of U-Net are known by how they are built: those of diffusers, whose up blocks take
``res_hidden_states_tuple``; EDM's, our own or with their own code, with ``enc`` and ``dec``;
ADM's, with ``skip_widths`` and ``output_blocks``.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import EvaluationFailed

_TUPLE = "res_hidden_states_tuple"

Hook = Callable[[Any, Any, Any], Any]  # of a module, its arguments and its keywords


class ScaledCalls:
    """A denoiser whose network's skip connections are scaled while it is called."""

    def __init__(self, denoiser: Any, links: "Links", factors: Sequence[float]) -> None:
        self._denoiser, self._links, self._factors = denoiser, links, tuple(factors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The answer of the scaled network."""
        with self._links.scaled(self._factors):
            answer: Tensor = self._denoiser(x, t, **condition)
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taker:
    """A decoder block, and the links that it takes, in the encoder's order."""

    module: nn.Module
    links: range
    width: int | None  # channels of its one link, the last of its input; None: they are a tuple


@dataclass(frozen=True, slots=True)
class Links:
    """The skip connections of a network."""

    takers: tuple[_Taker, ...]

    def __len__(self) -> int:
        return sum(len(taker.links) for taker in self.takers)

    @contextmanager
    def scaled(self, factors: Sequence[float]) -> Iterator[None]:
        """Within, link k is multiplied by ``factors[k]``; afterwards the network is what it
        was.
        """
        with ExitStack() as stack:
            for taker in self.takers:
                own = [factors[k] for k in taker.links]
                if any(factor != 1.0 for factor in own):
                    hook = _scales_last(taker.width, own[0]) if taker.width else _scales_tuple(own)
                    handle = taker.module.register_forward_pre_hook(hook, with_kwargs=True)
                    stack.callback(handle.remove)
            yield


def links_of(denoiser: Any) -> Links:
    """The skip connections of a denoiser's network; none of one that is no known U-Net."""
    modules = denoiser.modules() if isinstance(denoiser, nn.Module) else ()
    for module in modules:
        for found in (_of_diffusers(module), _of_edm(module), _of_adm(module)):
            if found:
                return Links(found)
    return Links(())


def checked_links(denoiser: Any, factors: Sequence[float]) -> Links:
    """`links_of` for as many factors; raises `EvaluationFailed` for another number."""
    links = links_of(denoiser)
    if len(links) != len(factors):
        found = f"the model's network has {len(links)}" if len(links) else "this model has none"
        raise EvaluationFailed(
            "model_patch.skip_scale: the schedule patches the network with factors for "
            f"{len(factors)} skip connections, {found}; remove the key, or use the model that it "
            "was made for"
        )
    return links


def _of_diffusers(network: nn.Module) -> tuple[_Taker, ...]:
    blocks = getattr(network, "up_blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not all(
        _TUPLE in inspect.signature(block.forward).parameters for block in blocks
    ):
        return ()
    counts = [len(block.resnets) for block in blocks]  # type: ignore[arg-type] # module lists
    ends = [sum(counts[i:]) for i in range(len(counts))]
    return tuple(
        _Taker(module=block, links=range(end - n, end), width=None)
        for block, n, end in zip(blocks, counts, ends, strict=True)
    )


def _of_edm(network: nn.Module) -> tuple[_Taker, ...]:
    encoder, decoder = (getattr(network, name, None) for name in ("enc", "dec"))
    if not isinstance(encoder, nn.ModuleDict) or not isinstance(decoder, nn.ModuleDict):
        return ()
    own: list[Any] = [module for name, module in decoder.items() if "aux" not in name]
    made: list[Any] = [module for name, module in encoder.items() if "aux" not in name]
    width, takers = made[-1].out_channels, list[_Taker]()
    for module in own:
        if module.in_channels != width:
            k = len(made) - 1 - len(takers)
            link = module.in_channels - width
            takers.append(_Taker(module=module, links=range(k, k + 1), width=link))
        width = module.out_channels
    return tuple(takers)


def _of_adm(network: nn.Module) -> tuple[_Taker, ...]:
    widths: Any = getattr(network, "skip_widths", None)
    stages = getattr(network, "output_blocks", None)
    if not isinstance(widths, list) or not isinstance(stages, nn.ModuleList):
        return ()
    last = len(widths) - 1
    return tuple(
        _Taker(module=stage, links=range(last - j, last - j + 1), width=widths[last - j])
        for j, stage in enumerate(stages)
    )


def _scales_last(width: int, factor: float) -> Hook:
    def hook(_: Any, args: Any, kwargs: Any) -> Any:
        x, *rest = args
        own, link = x[:, :-width], x[:, -width:]
        return (torch.cat([own, link * factor], dim=1), *rest), kwargs

    return hook


def _scales_tuple(factors: Sequence[float]) -> Hook:
    def scaled(links: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(link * factor for link, factor in zip(links, factors, strict=True))

    def hook(_: Any, args: Any, kwargs: Any) -> Any:
        if _TUPLE in kwargs:
            return args, {**kwargs, _TUPLE: scaled(kwargs[_TUPLE])}
        hidden, links, *rest = args
        return (hidden, scaled(links), *rest), kwargs

    return hook
