"""The distances in float64: eigenvalue problems on the device against those on the CPU."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.frechet_loss import FrechetLoss
from s3search.metrics.samples import Array
from s3search.metrics.statistic import FrechetStatistic
from tests.benchmarks.gpu_check.setting import Row, Setting, Verdict

_CLOSE = 1e-8  # of a distance, between two ways to it in float64
_GRADIENT_IMAGES = 500  # of an iteration of a polish


def distances(setting: Setting) -> Iterator[Row]:
    """Value and gradient of the Fréchet distance in as many dimensions as extractors have."""
    n, d = setting.size.n_features, setting.size.dimensions
    rng = np.random.default_rng(0)
    scales = np.linspace(2.0, 0.1, d)
    real, made = (rng.standard_normal((n, d)) * scales + shift for shift in (0.0, 0.05))
    reference = FrechetReference.of(FeatureStatistics.of(real))
    yield _value(setting, reference, made)
    yield _gradient(setting, reference, made[:_GRADIENT_IMAGES])


def _value(setting: Setting, reference: FrechetReference, made: Array) -> Row:
    """With the interval that a validation reports, as a worker there and one on the CPU do it."""
    devices = (torch.device("cpu"), setting.device)
    values, seconds = [], []
    for device in devices:
        statistic = FrechetStatistic(replace(reference, device=device))
        statistic.value(made)  # makes the root of the reference
        seconds.append(setting.seconds(partial(statistic.measured, made)))
        values.append(statistic.value(made))
    off, (n, d) = abs(values[1] / values[0] - 1.0), made.shape
    is_slower = setting.is_gpu and setting.size.is_timed and seconds[1] > seconds[0]
    return Row(
        check=f"distance and interval of {n:,} x {d:,} features, float64",
        verdict=Verdict.FAIL if off > _CLOSE or is_slower else Verdict.PASS,
        found=_seconds(setting, *seconds),
        why=f"the distances differ by {off:.1e}" if setting.is_gpu else "",
        numbers={"cpu": seconds[0], "device": seconds[1], "off": off},
    )


def _gradient(setting: Setting, reference: FrechetReference, made: Array) -> Row:
    """The loss of a polish, whose eigenvalue problem is on the device."""
    slopes, seconds = [], []
    for device in (torch.device("cpu"), setting.device):
        loss = FrechetLoss(reference, device)
        features = torch.tensor(made, dtype=torch.float32, device=device, requires_grad=True)

        def slope(loss: FrechetLoss = loss, features: torch.Tensor = features) -> None:
            slopes.append(torch.autograd.grad(loss(features), features)[0])

        slope()
        seconds.append(setting.seconds(slope))
    on_cpu, own = slopes[1].double(), slopes[3].double().cpu()
    off = float((own - on_cpu).norm() / on_cpu.norm())
    is_right = off < 1e-5 and slopes[3].device.type == setting.device.type
    n, d = made.shape
    return Row(
        check=f"gradient of the distance, {n} x {d:,} features",
        verdict=Verdict.PASS if is_right else Verdict.FAIL,
        found=_seconds(setting, *seconds),
        why=f"they differ by {off:.1e}" if setting.is_gpu else "",
        numbers={"cpu": seconds[0], "device": seconds[1], "off": off},
    )


def _seconds(setting: Setting, on_cpu: float, on_device: float) -> str:
    if not setting.is_gpu:
        return f"{on_cpu:.2f} s"
    return f"{on_device:.2f} s on {setting.device}, {on_cpu:.2f} s on the CPU"
