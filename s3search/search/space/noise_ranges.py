"""The noise that steps of a space may add: kinds of amounts and their ranges."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from s3search.rules import NoiseKind, Range


class NoiseRanges(BaseModel):
    """The table ``noise`` of a space; without a kind, no step adds noise.

    ``eta``, ``sde``, ``flow_eta`` and ``gamma`` are the lowest and highest amounts of a kind
    (`s3search.rules.noise`), ``s_noise`` of the factor on the noise, which is 1 without a range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    eta: Range | None = None
    sde: Range | None = None
    flow_eta: Range | None = None
    gamma: Range | None = None
    s_noise: Range | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name, amounts in self.ranges.items():
            low, high = amounts
            most = 1.0 if name == NoiseKind.GAMMA else float("inf")
            if not 0.0 <= low <= high <= most or high == 0.0:
                limit = " <= 1" if name == NoiseKind.GAMMA else ""
                raise ValueError(
                    f"{name.value}: need 0 <= low <= high{limit} and high above 0, "
                    f"found [{low}, {high}]"
                )
        if self.s_noise is None:
            return self
        if not 0.0 < self.s_noise[0] <= self.s_noise[1]:
            raise ValueError(f"s_noise: need 0 < low <= high, found {list(self.s_noise)}")
        if not self.is_on:
            raise ValueError("s_noise: multiplies noise that no kind adds; name 'eta' or 'gamma'")
        return self

    def __str__(self) -> str:
        """As a message says it: "eta [0, 1], gamma [0, 0.5]", or "none"."""
        named = [(kind.value, own) for kind, own in self.ranges.items()]
        named += [("s_noise", self.s_noise)] if self.s_noise is not None else []
        return ", ".join(f"{name} [{own[0]:g}, {own[1]:g}]" for name, own in named) or "none"

    @property
    def ranges(self) -> dict[NoiseKind, Range]:
        """The kinds that are possible, with the range of each one's amount."""
        named = {
            NoiseKind.ETA: self.eta,
            NoiseKind.SDE: self.sde,
            NoiseKind.FLOW_ETA: self.flow_eta,
            NoiseKind.GAMMA: self.gamma,
        }
        return {kind: own for kind, own in named.items() if own is not None}

    @property
    def is_on(self) -> bool:
        """Whether a step may add noise."""
        return bool(self.ranges)

    @property
    def scales(self) -> Range:
        """The range of the factor on the noise."""
        return self.s_noise or (1.0, 1.0)


def without_unused(space: dict[str, Any], default_rate: float) -> dict[str, Any]:
    """A space as plain data, without the fields about noise where there is none: what was stored
    before there was any is stored alike.
    """
    noise, mutation = space.get("noise"), space.get("mutation")
    if noise is None or any(own is not None for own in noise.values()):
        return space
    rest = {key: value for key, value in space.items() if key != "noise"}
    if mutation is not None and mutation.get("noise") == default_rate:
        rest["mutation"] = {key: rate for key, rate in mutation.items() if key != "noise"}
    return rest
