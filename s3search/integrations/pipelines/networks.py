"""The networks in a pipeline, and how many images go through them for one step."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from torch import Tensor, nn


def modules_in(pipe: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline, by the names of its parts."""
    parts = getattr(pipe, "components", None)
    held = dict(parts) if isinstance(parts, Mapping) else vars(pipe)
    return {name: part for name, part in held.items() if isinstance(part, nn.Module)}


class CountedImages(ExitStack):
    """Counts what goes through networks between a run's first step and its second.

    A network that is guided sees every image twice, in one call or in two.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.n_steps: Callable[[], int] = lambda: 0  # that were made so far
        self._networks, self._seen = networks, Counter[str]()

    def __enter__(self) -> Self:
        """Begins to count."""
        for name, network in self._networks.items():
            hook = network.register_forward_pre_hook(self._counting(name), with_kwargs=True)
            self.callback(hook.remove)
        return super().__enter__()

    @property
    def most(self) -> int:
        """Images that went through the busiest network."""
        return max(self._seen.values(), default=0)

    def _counting(self, name: str) -> Callable[..., None]:
        def count(_: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            if self.n_steps() != 1:
                return
            for value in (*args, *kwargs.values()):
                if isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 1):
                    self._seen[name] += len(value)
                    return

        return count
