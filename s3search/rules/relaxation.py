"""Relaxations: factors on the estimated derivatives of a Taylor step (formulas in `taylor`)."""

import math
from enum import StrEnum

from pydantic import model_validator

from s3search.rules.exponential import phi
from s3search.rules.points import Number, Part, Prediction


class RelaxationKind(StrEnum):
    """How an estimated derivative is rescaled."""

    LINEAR = "linear"
    SCALE = "scale"
    DPMSOLVER_2 = "dpmsolver-2"
    UNIPC_BH1 = "unipc-bh1"
    UNIPC_BH2 = "unipc-bh2"
    HALF_EXP = "0.5exp"
    MINUS_HALF_EXP = "-0.5exp"

    @property
    def takes_coefficient(self) -> bool:
        """Whether it is a family of factors, told apart by a coefficient."""
        return self in (RelaxationKind.LINEAR, RelaxationKind.SCALE)


class Relaxation(Part):
    """A factor on one derivative; ``coefficient`` belongs to `linear` and `scale` only."""

    kind: RelaxationKind
    coefficient: Number | None = None

    @model_validator(mode="after")
    def _coefficient_fits(self) -> "Relaxation":
        takes_one = self.kind.takes_coefficient
        if takes_one and self.coefficient is None:
            raise ValueError(f"relaxation {self.kind.value!r} needs a coefficient")
        if not takes_one and self.coefficient is not None:
            raise ValueError(f"relaxation {self.kind.value!r} takes no coefficient")
        return self

    def factor(self, h: float, prediction: Prediction) -> float:
        """The factor for a step of length h."""
        z = -h if prediction is Prediction.DATA else h
        match self.kind:
            case RelaxationKind.LINEAR:
                return 1.0 + (self.coefficient or 0.0) * h
            case RelaxationKind.SCALE:
                return self.coefficient or 0.0
            case RelaxationKind.DPMSOLVER_2 | RelaxationKind.UNIPC_BH2:
                return 0.5 * phi(1, z) / phi(2, z)
            case RelaxationKind.UNIPC_BH1:
                return 0.5 / phi(2, z)
            case RelaxationKind.HALF_EXP:
                return 1.0 + 0.5 * math.expm1(z)
            case RelaxationKind.MINUS_HALF_EXP:
                return 1.0 - 0.5 * math.expm1(z)
