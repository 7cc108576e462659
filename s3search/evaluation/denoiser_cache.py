"""What a network predicted, kept for the schedules that call it alike.

Schedules of a search have their noise in common, and many their first steps: those predictions are
computed once.  Where there is no room for more, those of the latest calls of plans go first, the
oldest of them, since far more schedules share a first call than a third.
"""

from collections import OrderedDict, defaultdict

from torch import Tensor

from s3search.evaluation.memory import bytes_of


class DenoiserCache:
    """A denoiser's predictions by the keys of their calls, up to ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._by_call: defaultdict[int, OrderedDict[str, Tensor]] = defaultdict(OrderedDict)
        self._call_of: dict[str, int] = {}
        self._bytes = 0

    def get(self, key: str) -> Tensor | None:
        """The prediction (B, ...) under this key, None where there is none."""
        if key not in self._call_of:
            return None
        kept = self._by_call[self._call_of[key]]
        kept.move_to_end(key)
        return kept[key]

    def keep(self, key: str, call: int, prediction: Tensor) -> None:
        """Takes the ``call``-th prediction (B, ...) of a plan, and drops others for it."""
        size = bytes_of(prediction)
        if key in self._call_of or size > self._max_bytes:
            return
        self._call_of[key] = call
        self._by_call[call][key] = prediction
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop_one()

    def clear(self) -> None:
        """Gives all memory back."""
        self._by_call.clear()
        self._call_of.clear()
        self._bytes = 0

    def _drop_one(self) -> None:
        latest = max(call for call, kept in self._by_call.items() if kept)
        key, prediction = self._by_call[latest].popitem(last=False)
        del self._call_of[key]
        self._bytes -= bytes_of(prediction)
