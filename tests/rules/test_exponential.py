"""phi functions against exact rational series."""

import math
from fractions import Fraction

import pytest

from s3search.rules.exponential import phi


def _exact(k: int, z: float) -> float:
    """sum_j z^j / (j + k)! in rationals; 120 terms are exact to rounding for |z| <= 20."""
    total, power = Fraction(0), Fraction(1)
    for j in range(120):
        total += power / math.factorial(j + k)
        power *= Fraction(z)
    return float(total)


@pytest.mark.parametrize("k", range(6))
@pytest.mark.parametrize(
    "z",
    [0.0, 1e-12, -1e-8, 3e-4, -0.03, 0.5, 0.999, -0.999, 1.0, -1.0, 1.001, -1.5, 4.0, -8.0, 15.0],
)
def test_phi_is_accurate_at_every_step_length(k: int, z: float) -> None:
    assert phi(k, z) == pytest.approx(_exact(k, z), rel=3e-14)


@pytest.mark.parametrize("k", range(5))
@pytest.mark.parametrize("z", [-2.0, -0.7, 0.4, 3.0])
def test_phi_obeys_its_recursion(k: int, z: float) -> None:
    assert z * phi(k + 1, z) == pytest.approx(phi(k, z) - 1 / math.factorial(k), rel=1e-12)
