"""What an exported schedule does exactly, what it approximates and by how much, and what it
refuses.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Approximation:
    """A sentence about what is not exact, and the number that was measured for it."""

    what: str
    measured: float
    unit: str

    def __str__(self) -> str:
        return f"{self.what}: {self.measured:.3g} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReport:
    """One sentence per item; ``refused`` holds what the exported file will not do."""

    exact: tuple[str, ...] = ()
    approximated: tuple[Approximation, ...] = ()
    refused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as it is printed and written into files."""
        parts = (("exact", self.exact), ("approximated", self.approximated))
        named = [*parts, ("refused", self.refused)]
        return [f"{name}: {item}" for name, items in named for item in items or ("nothing",)]
