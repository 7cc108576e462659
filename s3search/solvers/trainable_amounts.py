"""The amounts of noise in a schedule's steps, as numbers that an optimiser may move.

For each step whose noise, or that of its rule, has an amount above 0, a coordinate and a scale:

    eta, flow_eta   the amount itself
    sde             its root
    gamma           the angle with cos angle = 1 - gamma
    scale           s_noise, a tenth up or down

In these coordinates what a step draws is linear near 0.  An amount is at most 1, or what it was,
and never falls to 0, where the plan would have a draw less.  Times that noise is added from
(`NoiseKind.TIME`) stay.  A corrector that draws as its predictor does moves with it.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from s3search.rules import NoiseKind, StepNoise
from s3search.schedules.schedule import Step

Array = npt.NDArray[np.float64]

_LEAST = 0.01  # of a coordinate: a hundredth of the state
_SCALES = (0.9, 1.1)


class TrainableAmounts:
    """The coordinates of the steps' noise, then their scales: ``own`` as they were, each between
    ``low`` and ``high`` (2 K,) for K steps.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)
        self._where = [i for i, step in enumerate(steps) if _has_amount(_noise_of(step))]
        noises = [noise for step in steps if (noise := _noise_of(step)) and _has_amount(noise)]
        amounts = [_coordinate(noise) for noise in noises]
        scales = np.array([noise.scale for noise in noises])
        most = [max(_most(noise), own) for noise, own in zip(noises, amounts, strict=True)]
        least = [min(_LEAST, own) for own in amounts]
        self.own = np.array([*amounts, *scales])
        self.low = np.array([*least, *_SCALES[0] * scales])
        self.high = np.array([*most, *_SCALES[1] * scales])

    def steps_at(self, values: Array) -> tuple[Step, ...]:
        """The steps with the noise of these coordinates and scales (2 K,)."""
        steps, n = list(self._steps), len(self._where)
        changed = values != self.own
        for k, i in enumerate(self._where):
            noise = _noise_of(steps[i])
            assert noise is not None
            amount = _amount(noise, float(values[k])) if changed[k] else noise.amount
            scale = float(values[n + k]) if changed[n + k] else noise.scale
            own = StepNoise(kind=noise.kind, amount=amount, scale=scale)
            steps[i] = _with_noise(steps[i], own)
        return tuple(steps)


def _noise_of(step: Step) -> StepNoise | None:
    """What the step adds, or its rule does where that has an amount of its own."""
    own = getattr(step.predictor, "noise", None)
    return own if isinstance(own, StepNoise) else step.noise


def _with_noise(step: Step, noise: StepNoise) -> Step:
    old = _noise_of(step)
    if old is step.noise:
        return step.model_copy(update={"noise": noise})
    predictor = step.predictor.model_copy(update={"noise": noise})
    corrector = step.corrector
    if corrector is not None and getattr(corrector.rule, "noise", None) == old:
        rule = corrector.rule.model_copy(update={"noise": noise})
        corrector = corrector.model_copy(update={"rule": rule})
    return step.model_copy(update={"predictor": predictor, "corrector": corrector})


def _has_amount(noise: StepNoise | None) -> bool:
    return noise is not None and noise.kind is not NoiseKind.TIME and noise.amount > 0.0


def _most(noise: StepNoise) -> float:
    return 0.5 * math.pi - _LEAST if noise.kind is NoiseKind.GAMMA else 1.0


def _coordinate(noise: StepNoise) -> float:
    match noise.kind:
        case NoiseKind.GAMMA:
            return math.acos(1.0 - noise.amount)
        case NoiseKind.SDE:
            return math.sqrt(noise.amount)
    return noise.amount


def _amount(noise: StepNoise, coordinate: float) -> float:
    match noise.kind:
        case NoiseKind.GAMMA:
            return 1.0 - math.cos(coordinate)
        case NoiseKind.SDE:
            return coordinate**2
    return coordinate
