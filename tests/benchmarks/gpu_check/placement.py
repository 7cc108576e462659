"""Where numbers are: all tensors and arrays that hang on the objects of a worker, and all that an
evaluation makes on its way.
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from s3search.evaluation.evaluator import Evaluator
from s3search.solvers.coefficients import coefficient_table
from s3search.solvers.plan import compile_plan
from s3search.solvers.trainable import Freedom, TrainableTable, trained_range
from tests.benchmarks.gpu_check.setting import Row, Setting, Verdict, mebibytes

_OWN = ("s3search", "tests")  # whose objects are looked into

_ON_DEVICE = ("denoiser", "noise", "_sampler", "metric.view", "loss")
_ON_CPU = {
    "real": "real images, seen once",
    "metric.statistic": "statistics in float64",
    "plan": "a table of numbers in float64",
    "table": "a table of numbers in float64, whose products with states are on the device",
    "guards": "there are none",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A tensor or an array, and the way to it."""

    path: str
    device: str
    n_bytes: int


def numbers_of(thing: Any, path: str, seen: set[int] | None = None) -> Iterator[Found]:
    """All tensors and arrays that an object holds: in attributes, slots, containers, modules,
    partials, methods and closures; each once.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield Found(path, str(thing.device), thing.numel() * thing.element_size())
    elif isinstance(thing, np.ndarray):
        yield Found(path, "cpu", thing.nbytes)
    else:
        for name, value in _parts(thing):
            yield from numbers_of(value, f"{path}.{name}", seen)


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """What is looked into next, by name."""
    if isinstance(thing, nn.Module):
        yield from thing.named_parameters()
        yield from thing.named_buffers()
    if isinstance(thing, Mapping):
        yield from ((str(key), value) for key, value in thing.items())
    elif isinstance(thing, Sequence | AbstractSet) and not isinstance(thing, str | bytes):
        yield from ((str(i), value) for i, value in enumerate(thing))
    elif isinstance(thing, functools.partial):
        yield from (("function", thing.func), ("given", thing.args), ("named", thing.keywords))
    elif hasattr(thing, "__closure__"):
        cells = thing.__closure__ or ()
        yield from ((f"closure{i}", cell.cell_contents) for i, cell in enumerate(cells))
    elif hasattr(thing, "__self__"):
        yield "self", thing.__self__
    if type(thing).__module__.partition(".")[0] in _OWN:
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        names = [*getattr(thing, "__dict__", ()), *(n for n in slots if n not in _HIDDEN)]
        yield from ((name, getattr(thing, name)) for name in names if hasattr(thing, name))


_HIDDEN = ("__dict__", "__weakref__")


def placement(setting: Setting) -> Iterator[Row]:
    """A row for each part of a worker that holds numbers, and one for what an evaluation makes."""
    evaluator = setting.evaluator()
    question = setting.question()
    with Watch(setting.device) as watch:
        evaluator.evaluate(question)
    yield from rows_of(held_by(evaluator, setting), setting.device)
    yield watch.row()


def held_by(evaluator: Evaluator, setting: Setting) -> dict[str, list[Found]]:
    """What a worker holds after an evaluation, by the part that holds it."""
    schedule = setting.question().schedule
    seen: set[int] = set()
    held: dict[str, list[Found]] = defaultdict(list)
    objects = {
        "denoiser": evaluator.denoiser,
        "metric.view": evaluator.metric.view,
        "metric.statistic": evaluator.metric.statistic,
        "loss": evaluator.metric.statistic.loss(setting.device),
        "plan": compile_plan(schedule),
        "table": TrainableTable(
            coefficient_table(schedule),
            carries=False,
            free=frozenset(Freedom),
            trained=trained_range(schedule.process),
        ),
        **vars(evaluator),
    }
    for part, thing in objects.items():
        for found in numbers_of(thing, part, seen):
            held[part].append(found)
    return held


def rows_of(held: Mapping[str, Sequence[Found]], device: torch.device) -> Iterator[Row]:
    """Fail what lies elsewhere than it should, and what nobody has said where it should be."""
    for part, found in held.items():
        places = Counter(each.device.partition(":")[0] for each in found)
        size = mebibytes(sum(each.n_bytes for each in found))
        wanted = device.type if part in _ON_DEVICE else "cpu"
        strays = [each for each in found if each.device.partition(":")[0] != wanted]
        why = _ON_CPU.get(part, "")
        if part not in _ON_DEVICE and part not in _ON_CPU:
            why = f"nobody says where it belongs: {found[0].path}"
        elif strays:
            why = f"should be on {wanted}: {', '.join(each.path for each in strays[:3])}"
        is_right = not strays and (part in _ON_DEVICE or part in _ON_CPU)
        counts = ", ".join(f"{n} on {place}" for place, n in places.items())
        yield Row(
            check=f"placement: {part}",
            verdict=Verdict.PASS if is_right else Verdict.FAIL,
            found=f"{counts}, {size}",
            why=why,
            numbers={f"tensors_on_{place}": n for place, n in places.items()},
        )


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not typed
    """Sees every operation's result while it is entered.

    What is fetched to the CPU, and noise that is drawn there so that it does not depend on the
    device, may be elsewhere; work on it may not.
    """

    _MAY = (
        "_to_copy",
        "copy_",
        "randn",
        "normal_",
        "empty",
        "view",
        "detach",
        "cat",
        "slice",
        "lift_fresh",
    )
    _FEW = 4096  # numbers: labels, times, coefficients

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._n = 0
        self._elsewhere: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The operation's result, counted."""
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self._n += 1
                name = func.overloadpacket.__name__
                if each.device.type != self._device.type and each.numel() > self._FEW:
                    self._elsewhere[name] += name not in self._MAY
        return made

    def row(self) -> Row:
        """The verdict."""
        work = [name for name, n in self._elsewhere.items() if n]
        moved = len(self._elsewhere) - len(work)
        return Row(
            check="placement: an evaluation",
            verdict=Verdict.FAIL if work else Verdict.PASS,
            found=f"{self._n} results of operations; {moved} kinds of copies and draws elsewhere",
            why=f"work off {self._device}: {', '.join(work)}" if work else "",
            numbers={"results": self._n},
        )
