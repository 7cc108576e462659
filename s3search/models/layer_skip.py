"""Leaving blocks out of a network, call by call (AutoDiffusion, arXiv:2309.10438).

A block can be left out where it is residual, y = x + f(x): it then hands x on.  That is seen, not
guessed from names: the denoiser is called on one image with gradients on, and a module is
residual if each of its outputs leads back to one of its inputs, of the same shape and dtype,
through nothing but additions, scalings and changes of layout.  So a block of a U-Net or of a
transformer is found, with the second stream of joint blocks, and a convolution or a feed-forward
part, which has the shape but nothing to hand on, is not.

A module that only runs blocks one after the other is not a block itself; its blocks are.  Blocks
are numbered in the order of their calls, one around others before them.

Multiply-adds are those that `torch.utils.flop_counter` knows: of matrix products and convolutions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge, saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from s3search.errors import EvaluationFailed
from s3search.schedules.layers import Layer, Layers
from s3search.solvers.sample import Denoiser

Key = int | str  # a positional argument, or a keyword
Edge = tuple[Node, int]

_HANDED_ON = (
    *("Add", "Div", "Mul", "Addcmul", "Clamp", "ToCopy", "Clone"),
    *("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Expand", "AsStrided"),
    *("Permute", "Transpose", "T", "Cat", "Slice", "Split", "SplitWithSizes", "Select", "Alias"),
)
"""The operations through which an input is handed on, as autograd names them."""

_WHOLE = 0.999  # of the multiply-adds: such a module is the network, not a block of it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    module: nn.Module
    sources: tuple[Key | None, ...]  # the argument that stands in for each output; None for None
    is_single: bool  # a tensor is returned, not a tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks of a denoiser: their description, and what it takes to leave them out."""

    layers: Layers
    parts: tuple[_Block, ...]

    @contextmanager
    def left_out(self, skipped: Sequence[int]) -> Iterator[None]:
        """Within, these blocks hand their inputs on; afterwards the network is what it was."""
        before = list[tuple[nn.Module, Any]]()
        try:
            for index in skipped:
                module = self.parts[index].module
                before.append((module, module.__dict__.get("forward")))
                module.__dict__["forward"] = _hands_on(self.parts[index])
            yield
        finally:
            for module, forward in reversed(before):
                if forward is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = forward


class SkippingCalls:
    """A denoiser for one trajectory, whose calls, in their order, each leave out their own
    blocks.
    """

    def __init__(self, denoiser: Any, blocks: Blocks, calls: Sequence[Sequence[int]]) -> None:
        self._denoiser, self._blocks, self._calls = denoiser, blocks, tuple(calls)
        self._made = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The answer of the next call; there are as many as lists."""
        skipped = self._calls[self._made]
        self._made += 1
        with self._blocks.left_out(skipped):
            answer: Tensor = self._denoiser(x, t, **condition)
        return answer


_KNOWN: WeakKeyDictionary[nn.Module, Blocks] = WeakKeyDictionary()


def layers_of(denoiser: Any) -> Layers | None:
    """The blocks that a denoiser can leave out and their costs, None of one that is no module."""
    return blocks_of(denoiser).layers if isinstance(denoiser, nn.Module) else None


def blocks_of(denoiser: Any) -> Blocks:
    """The blocks of a denoiser, found once with two calls on one image; raises `EvaluationFailed`
    for one that is no module.

    A denoiser with ``skippable``, a module in it, has blocks in that alone.
    """
    if not isinstance(denoiser, nn.Module):
        raise EvaluationFailed(
            "model_patch.skip_layers: blocks are left out of a torch.nn.Module, this model is a "
            f"{type(denoiser).__name__}; remove the key from the schedule"
        )
    if denoiser not in _KNOWN:
        _KNOWN[denoiser] = _found(denoiser)
    return _KNOWN[denoiser]


def multiply_adds(call: Callable[[], Any]) -> int:
    """The multiply-adds of whatever ``call`` computes, its own gradients among it."""
    counter = _Counter()
    with sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return counter.flops // 2


def one_image(denoiser: nn.Module) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
    """A state, a time in the middle of the process and a condition, for one image."""
    device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    given = cast("Denoiser", denoiser)
    shape, process = given.sample_shape, given.process
    low, high = process.time_range
    t = torch.full((1,), (low + high) / 2, device=device)
    noise = torch.randn((1, *shape), generator=generator).to(device)
    x = noise * process.sigma(t.double()).to(noise)
    drawn = getattr(denoiser, "condition", None)
    condition = {} if drawn is None else drawn(1, generator)
    return x, t, {name: value.to(device) for name, value in condition.items()}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's
    """Floating-point operations by the formulas of `torch.utils.flop_counter`.

    `FlopCounterMode` itself hooks into every module's gradients, which denoisers that take
    gradients do not survive.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and torch.is_inference_mode_enabled():
            with self:  # only there do products arrive whole
                parts = func.decompose(*args, **given)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **given)
        if formula is not None:
            self.flops += formula(*args, **given, out_val=out)
        return out


# -- finding -----------------------------------------------------------------------------------


def _found(denoiser: nn.Module) -> Blocks:
    root = cast("nn.Module", getattr(denoiser, "skippable", denoiser))
    with torch.inference_mode(mode=False), torch.no_grad():
        x, t, condition = one_image(denoiser)
        denoiser(x, t, **condition)  # a pipeline keeps what it makes of its prompts here
    counter = _Counter()
    calls = _Calls(counter)
    hooks = [h for m in root.modules() if m is not denoiser and _has_parts(m) for h in calls.on(m)]
    try:
        # the tensors that gradients need are not kept: only the shape of the graph matters
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            sdpa_kernel(SDPBackend.MATH),
            _without_memory(denoiser),
            counter,
        ):
            denoiser(x, t, **condition)
    finally:
        for hook in hooks:
            hook.remove()
    total = counter.flops // 2
    names = {module: name for name, module in denoiser.named_modules()}
    return calls.blocks(total, names)


def _has_parts(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList | nn.ModuleDict) and any(
        True for _ in module.children()
    )


@contextmanager
def _without_memory(denoiser: nn.Module) -> Iterator[None]:
    """Nothing is kept for gradients, except of a denoiser that takes some itself."""
    if hasattr(denoiser, "skippable"):
        yield
        return
    nothing = torch.empty(0)
    with saved_tensors_hooks(lambda _: nothing, lambda _: nothing):
        yield


@dataclass(slots=True, kw_only=True)
class _Call:
    """One module in the denoiser's call; the edges keep their autograd nodes alive."""

    inside: "_Call | None"
    inputs: dict[Key, tuple[Tensor, Edge]]
    before: int  # floating-point operations counted before it
    spent: int = 0
    outputs: list[tuple[Tensor, Edge] | None] = field(default_factory=list)
    sources: tuple[Key | None, ...] | None = None
    is_single: bool = True
    is_chain: bool = False


class _Calls:
    """Hooks that follow the calls of modules."""

    def __init__(self, counter: _Counter) -> None:
        self._counter = counter
        self._open: list[tuple[nn.Module, _Call]] = []
        self._calls: dict[nn.Module, _Call] = {}  # in order

    def on(self, module: nn.Module) -> tuple[Any, Any]:
        """Follows one module."""
        return (
            module.register_forward_pre_hook(self._enters, with_kwargs=True),
            module.register_forward_hook(self._leaves, with_kwargs=True),
        )

    def blocks(self, total: int, names: Mapping[nn.Module, str]) -> Blocks:
        """The residual modules, of a call of ``total`` multiply-adds."""
        kept = {
            module: call
            for module, call in self._calls.items()
            if call.sources is not None
            and not call.is_chain
            and 0 < call.spent // 2 < _WHOLE * total
        }
        places = {id(call): i for i, call in enumerate(kept.values())}
        layers = tuple(
            Layer(
                name=names[module],
                kind=type(module).__name__,
                shape=_shape(call),
                multiply_adds=call.spent // 2,
                inside=_around(call, places),
            )
            for module, call in kept.items()
        )
        parts = tuple(
            _Block(module=module, sources=call.sources or (), is_single=call.is_single)
            for module, call in kept.items()
        )
        return Blocks(layers=Layers(multiply_adds=total, layers=layers), parts=parts)

    def _enters(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        inputs = dict[Key, tuple[Tensor, Edge]]()
        own_args = list(args)
        own_kwargs = dict(kwargs)
        for own, items in ((own_args, enumerate(args)), (own_kwargs, kwargs.items())):
            for key, value in items:
                if isinstance(value, Tensor) and value.is_floating_point():
                    own_value = value.clone() if value.is_inference() else value
                    tensor = value if value.requires_grad else own_value.detach().requires_grad_()
                    cast("Any", own)[key] = tensor
                    inputs[key] = (tensor, _edge(tensor))
        inside = self._open[-1][1] if self._open else None
        call = _Call(inside=inside, inputs=inputs, before=self._counter.flops)
        self._open.append((module, call))
        self._calls.setdefault(module, call)
        return tuple(own_args), own_kwargs

    def _leaves(self, module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        left, call = self._open.pop()
        assert left is module
        call.spent = self._counter.flops - call.before
        call.is_single = isinstance(output, Tensor)
        values = (output,) if call.is_single else output
        if isinstance(values, tuple) and all(_is_answer(value) for value in values):
            call.outputs = [None if v is None else (v, _edge(v)) for v in values]
            call.sources = _sources(call)
        inner = [own for own in self._calls.values() if own.inside is call and own.sources]
        call.is_chain = _is_chain(call, inner)
        first = self._calls[module]
        if first is not call:  # a module that is called again
            first.spent += call.spent
            if first.sources != call.sources:
                first.sources = None


def _is_answer(value: Any) -> bool:
    return value is None or (isinstance(value, Tensor) and value.requires_grad)


def _edge(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _sources(call: _Call) -> tuple[Key | None, ...] | None:
    """The input behind each output; None where one has none, or several."""
    found = list[Key | None]()
    for output in call.outputs:
        if output is None:
            found.append(None)
            continue
        tensor, edge = output
        reached = _reached(edge, {own for _, own in call.inputs.values()})
        fitting = [
            key
            for key, (own, at) in call.inputs.items()
            if at in reached and own.shape == tensor.shape and own.dtype == tensor.dtype
        ]
        if len(fitting) != 1:
            return None
        found.append(fitting[0])
    used = [key for key in found if key is not None]
    return tuple(found) if used and len(set(used)) == len(used) else None


def _reached(edge: Edge, targets: set[Edge]) -> set[Edge]:
    """Those of ``targets`` that an output's gradient reaches unchanged but for scale and
    layout.
    """
    seen, waiting = set[Edge](), [edge]
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        node, _ = at
        if at in targets:
            continue
        name = node.name().removesuffix("0").removesuffix("Backward").lstrip("_")
        if name not in _HANDED_ON:
            continue
        before = [(own, nr) for own, nr in node.next_functions if own is not None]
        if name == "Mul" and len(before) > 1:
            continue  # a gate, not a scale
        if name == "Addcmul":
            first, nr = node.next_functions[0]
            before = [] if first is None else [(first, nr)]
        waiting += before
    return seen & targets


def _is_chain(call: _Call, inner: Sequence[_Call]) -> bool:
    """Whether a module only runs blocks one after the other."""
    ends = [own for own in call.outputs if own is not None]
    if not ends or not call.inputs:
        return False
    begins = {edge for _, edge in call.inputs.values()}
    starts = any(edge in begins for own in inner for edge in _handed(own))
    last = {edge for own in inner for output in own.outputs if output for edge in [output[1]]}
    return starts and all(edge in last for _, edge in ends)


def _handed(call: _Call) -> list[Edge]:
    """The inputs that a block hands on."""
    return [call.inputs[key][1] for key in call.sources or () if key is not None]


def _around(call: _Call, places: Mapping[int, int]) -> int | None:
    at = call.inside
    while at is not None and id(at) not in places:
        at = at.inside
    return None if at is None else places[id(at)]


def _shape(call: _Call) -> tuple[int, ...]:
    handed = [call.inputs[key][0] for key in call.sources or () if key is not None]
    return tuple(max(handed, key=Tensor.numel).shape)


# -- leaving out -------------------------------------------------------------------------------


def _hands_on(block: _Block) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        answers = tuple(
            None if key is None else args[key] if isinstance(key, int) else kwargs[key]
            for key in block.sources
        )
        return answers[0] if block.is_single else answers

    return forward
