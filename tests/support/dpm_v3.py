"""DPM-Solver-v3 written out once more, on tensors and by its formulas alone (arXiv:2310.13268).

L = int l, S = int s, I = int e^(L+S), B = int e^(-S) b, C = int e^(L+S) B over the nodes; for the
step from node i to node j, g_q = e^(S_i) (e^(-S_q) f_q - (B_q - B_i)) and

    x_t / alpha_t = e^(L_i - L_j) x_s / alpha_s - e^(-L_j - S_i) (I_j - I_i) g_s
                    - e^(-L_j) (C_j - C_i - B_i (I_j - I_i)) - e^(L_i - L_j) sum_{k>=1} E_k g^(k)

Times are nodes.  No plan, no linear form and no rule of the product is used here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from s3search.processes import NoiseProcess
from s3search.rules import EmsStatistics
from s3search.solvers.sample import Denoiser


def _running(values: np.ndarray, spacing: float) -> np.ndarray:
    """Trapezoid sums from node 0 to every node."""
    parts = [np.zeros_like(values[0])]
    for before, after in pairwise(values):
        parts.append(parts[-1] + 0.5 * spacing * (before + after))
    return np.stack(parts)


@dataclass(slots=True)
class WrittenOutV3:
    """One run; ``corrects`` tells whether a point at this time is corrected."""

    denoiser: Denoiser
    process: NoiseProcess
    ems: EmsStatistics
    order: int
    p_pseudo: bool
    c_pseudo: bool
    corrects: Callable[[float], bool]
    nodes: list[int] = field(default_factory=list)
    scaled: list[Tensor] = field(default_factory=list)  # x / alpha, corrected or not
    f: list[Tensor] = field(default_factory=list)

    def run(self, times: Sequence[float], x: Tensor) -> Tensor:
        """The end of the run from ``x`` at ``times[0]``."""
        y, previous = x / self.process.alpha(times[0]), 0
        n = len(times) - 1
        for i, t in enumerate(times[:-1]):
            self._call(y, t)
            order = previous + self.c_pseudo
            if i and order > 1 and self.corrects(t):
                points = [-2, -1, *range(-3, -1 - order, -1)]
                self.scaled[-1] = self._step(points, self.nodes[-1], self.c_pseudo)
            previous = min(self.order, i + 1, n - i)
            target = self._node(times[i + 1])
            y = self._step(list(range(-1, -1 - previous, -1)), target, self.p_pseudo)
        return y * self.process.alpha(times[-1])

    def _node(self, t: float) -> int:
        return int(np.argmin(np.abs(self.ems.lams - self.process.lam(t))))

    def _call(self, y: Tensor, t: float) -> None:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        answer = self.denoiser(alpha * y, torch.full((len(y),), t, dtype=y.dtype))
        noise = (alpha * y - alpha * answer) / sigma
        node = self._node(t)
        self.nodes.append(node)
        self.scaled.append(y)
        self.f.append(sigma * noise / alpha - torch.from_numpy(self.ems.l[node].copy()) * y)

    def _step(self, points: list[int], j: int, pseudo: bool) -> Tensor:
        """From the first of ``points`` to node ``j`` through the predictions at all of them."""
        spacing, lams = self.ems.lams[1] - self.ems.lams[0], self.ems.lams
        big_l, big_s = (_running(a, spacing) for a in (self.ems.l, self.ems.s))
        growth = np.exp(big_l + big_s)
        big_b = _running(np.exp(-big_s) * self.ems.b, spacing)
        big_i, big_c = _running(growth, spacing), _running(growth * big_b, spacing)
        i = self.nodes[points[0]]
        places = [float(lams[self.nodes[p]]) for p in points]
        g = []
        for p in points:
            q = self.nodes[p]
            bias = torch.from_numpy(np.exp(big_s[i]) * (big_b[q] - big_b[i]))
            g.append(torch.from_numpy(np.exp(big_s[i] - big_s[q])) * self.f[p] - bias)
        derivatives = _divided(places, g) if pseudo else _taylor(places, g)
        ratio = np.exp(big_l[i] - big_l[j])
        y = torch.from_numpy(ratio) * self.scaled[points[0]]
        y = y - torch.from_numpy(np.exp(-big_l[j] - big_s[i]) * (big_i[j] - big_i[i])) * g[0]
        drift = big_c[j] - big_c[i] - big_b[i] * (big_i[j] - big_i[i])
        y = y - torch.from_numpy(np.exp(-big_l[j]) * drift)
        for k, derivative in enumerate(derivatives, start=1):
            distance = (lams - lams[i])[:, None, None, None]
            inner = growth / growth[i] * distance**k / math.factorial(k)
            e_k = _running(inner[i : j + 1], spacing)[-1]
            y = y - torch.from_numpy(ratio * e_k) * derivative
        return y


def _taylor(places: list[float], g: list[Tensor]) -> list[Tensor]:
    """g', g'', ... at the first place from all the others together."""
    n = len(g) - 1
    matrix = np.array([[(p - places[0]) ** k for k in range(1, n + 1)] for p in places[1:]])
    weights = np.linalg.inv(matrix) if n else matrix
    return [
        math.factorial(k + 1) * sum(float(w) * (v - g[0]) for w, v in zip(row, g[1:], strict=True))
        for k, row in enumerate(weights)
    ]


def _divided(places: list[float], g: list[Tensor]) -> list[Tensor]:
    """k! times the k-th divided difference over the first k + 1 places."""
    found, level = [], g
    for k in range(1, len(g)):
        level = [
            (level[i + 1] - level[i]) / (places[i + k] - places[i]) for i in range(len(level) - 1)
        ]
        found.append(math.factorial(k) * level[0])
    return found
