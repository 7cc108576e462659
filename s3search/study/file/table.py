"""What all tables of a study file have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of known keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OpenTable(BaseModel):
    """A table whose remaining keys go to the function that it names."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """The remaining keys."""
        return dict(self.model_extra or {})
