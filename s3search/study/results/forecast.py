"""What a study will cost, as it is told before anything is spent; `s3search.run.forecast` says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class CostForecast:
    """The cost of a whole study; mappings are by stage, in the order of the stages.

    ``network_calls`` has no search where its budget is time.  ``seconds`` are of one worker, and
    None before anything was measured.
    """

    budget: str  # in words
    network_calls: Mapping[str, int]
    validated: int  # schedules, at most
    held_out_images: int  # of each of them
    real_images: int  # drawn for the distance of real images, which takes no network call
    spent: int = 0  # network calls that the study has made before
    n_workers: int = 1
    notes: tuple[str, ...] = ()  # what to know beside the cost
    rungs: tuple[Mapping[str, Any], ...] = ()  # which parts of the search work, and why not
    seconds: Mapping[str, float] | None = None

    @property
    def total(self) -> int:
        """Network calls of all stages."""
        return sum(self.network_calls.values())

    @property
    def minutes(self) -> Mapping[str, float]:
        """Of all workers together, by stage; none before anything was measured."""
        seconds = self.seconds or {}
        return {name: own / self.n_workers / 60 for name, own in seconds.items()}


@runtime_checkable
class HearsForecast(Protocol):
    """A report that is also told, before anything is spent, what a study will cost."""

    def begins(self, forecast: CostForecast) -> None:
        """Hears the forecast."""
