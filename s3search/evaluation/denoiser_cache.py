"""What a network answered, kept for the schedules that ask it the same.

Schedules of a search have their noise in common, and many their first steps: the answers to those
are computed once.  Where there is no room for more, the answers to the latest calls of plans go
first, the oldest of them, since far more schedules share a first call than a third.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Hashable

from torch import Tensor

from s3search.evaluation.memory import bytes_of


class AnswerCache:
    """Answers by the images they are for and the key of the call, up to ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._by_call: defaultdict[int, OrderedDict[Hashable, Tensor]] = defaultdict(OrderedDict)
        self._call_of: dict[Hashable, int] = {}
        self._bytes = 0

    def of(self, images: Hashable) -> "AnswersTo":
        """The answers to some images, which their name must tell from all others."""
        return AnswersTo(self, images)

    def get(self, key: Hashable) -> Tensor | None:
        if key not in self._call_of:
            return None
        kept = self._by_call[self._call_of[key]]
        kept.move_to_end(key)
        return kept[key]

    def keep(self, key: Hashable, call: int, answer: Tensor) -> None:
        size = bytes_of(answer)
        if key in self._call_of or size > self._max_bytes:
            return
        self._call_of[key] = call
        self._by_call[call][key] = answer
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
        key, answer = self._by_call[latest].popitem(last=False)
        del self._call_of[key]
        self._bytes -= bytes_of(answer)


class AnswersTo:
    """The part of a cache that is about some images."""

    def __init__(self, cache: AnswerCache, images: Hashable) -> None:
        self._cache, self._images = cache, images

    def get(self, key: str) -> Tensor | None:
        return self._cache.get((self._images, key))

    def keep(self, key: str, call: int, answer: Tensor) -> None:
        self._cache.keep((self._images, key), call, answer)
