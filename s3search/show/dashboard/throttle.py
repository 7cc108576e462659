"""A wait after failed logins, which grows: passwords cannot be guessed by the hundred."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE_FAILURES = 3  # a person mistypes
LONGEST_SECONDS = 30.0
_FIRST_SECONDS = 0.5
_MOST_ADDRESSES = 10_000  # that are remembered; of more the one that failed longest ago is let go


@dataclass(slots=True)
class _Failures:
    count: int
    until: float  # on the clock


class Throttle:
    """Which addresses have to wait before their next login is looked at."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """How long logins of an address are not looked at; 0 where they are."""
        with self._lock:
            known = self._failures.get(address)
            return 0.0 if known is None else max(known.until - self._clock(), 0.0)

    def failed(self, address: str) -> None:
        """Notes a failed login: from the fourth in a row on the wait doubles each time."""
        with self._lock:
            known = self._failures.pop(address, _Failures(0, 0.0))
            known.count += 1
            over = known.count - FREE_FAILURES
            if over > 0:
                doubled = _FIRST_SECONDS * 2.0 ** min(over - 1, 32)
                known.until = self._clock() + min(doubled, LONGEST_SECONDS)
            self._failures[address] = known
            if len(self._failures) > _MOST_ADDRESSES:
                self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forgets what failed before."""
        with self._lock:
            self._failures.pop(address, None)
