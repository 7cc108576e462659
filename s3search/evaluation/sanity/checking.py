"""The sanity check of a study: findings of a few network calls, before anything is spent.

An error is what makes every measurement wrong and has a name; what only looks bad is a warning,
since a small, badly trained or strongly guided model is still a model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, InvalidConfig
from s3search.evaluation.decoding import images_of
from s3search.evaluation.live import check_answer
from s3search.evaluation.metric import Metric
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.record import Finding, Status
from s3search.evaluation.sanity.probe import LevelError, Probe, Remembered, asked
from s3search.evaluation.sanity.rungs import Loaded, rungs_of
from s3search.evaluation.sanity.slips import likeliest_slip
from s3search.solvers.shapes import are_pictures

FEATURES, SCORE = "features", "score"
"""The checks of what metrics make of images; what fails there fails in every measurement."""

SEED = 2**63 - 25  # of the noise; no study draws from it
_IMAGES, _MOST_IMAGES = 8, 64
_NUMBERS = 2048  # in them at least, as far as that
_BAD = 4.0  # units of error that are worth a warning
_BAD_AT_END = 10.0  # of them at much noise, where a small error in epsilon is a large one in x0
_CHANGED = 1e-2  # of the answer, between two calls that should agree
_ROUNDED = 1e-3
_LARGE = 2.0  # mean absolute value of images
_RANGE_SLACK = 0.1  # below 0, of images in [0, 1]
_RARE = 0.02  # of the pixels lie beyond an end of the range
_FEW_PIXELS = 2**20


class Checked(Loaded, Protocol):
    """What a worker has loaded, as far as it is checked."""

    where: str  # how the study names the model
    noise: NoiseBank

    @property
    def batch_size(self) -> int:
        """Images through the network at once."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """All that the study measures by."""


@torch.inference_mode()
def findings_of(checked: Checked) -> tuple[Finding, ...]:
    """All that a few calls tell; after an answer of a wrong shape nothing more is asked."""
    noise, condition = _drawn(checked)
    try:
        check_answer(checked.denoiser, noise, condition, checked.where)
    except InvalidConfig as error:
        return (Finding(check="answers", status=Status.ERROR, message=str(error)),)
    shape = tuple(noise.shape[1:])
    found = [_ok("answers", f"finite and of the shape {shape} that was asked")]
    probe, model = _probe(checked, noise, condition), Remembered(checked.denoiser)
    found += _denoising(checked.where, model, probe)
    if not probe.is_own and not any(each.status is Status.ERROR for each in found):
        found.append(_noisy_end(model, probe))
    found += _agreement(checked.where, model, probe)
    found += _images(checked, model, probe)
    if not any(each.status is Status.ERROR for each in found):
        found += rungs_of(checked)
    return tuple(found)


def _drawn(checked: Checked) -> tuple[Tensor, dict[str, Tensor]]:
    numbers = math.prod(checked.denoiser.sample_shape)
    n = min(_MOST_IMAGES, max(_IMAGES, _NUMBERS // numbers), max(2, checked.batch_size))
    return next(iter(checked.noise.batches(SEED, n, n)))


def _probe(checked: Checked, noise: Tensor, condition: dict[str, Tensor]) -> Probe:
    """Noise on real images where the model makes such and nobody says which, else on its own."""
    images = checked.reference_images
    shape = tuple(checked.denoiser.sample_shape)
    is_decoded = getattr(checked.denoiser, "decode", None) is not None
    if images is None or is_decoded or condition or tuple(images.shape[1:]) != shape:
        return Probe(images=noise, noise=noise, condition=condition).solved(checked.denoiser)
    n = min(len(noise), len(images))
    chosen = images[[i * len(images) // n for i in range(n)]].to(noise)
    return Probe(images=chosen, noise=noise[:n], condition=condition)


def _agreement(where: str, model: Remembered, probe: Probe) -> Iterator[Finding]:
    """Whether an answer is the same twice, and in a smaller batch."""
    t = probe.times(model.process)[-1]
    x, half = probe.state(model.process, t), max(1, len(probe.noise) // 2)
    few = {key: value[:half] for key, value in probe.condition.items()}
    whole = asked(model, x, t, probe.condition)
    again = asked(model.denoiser, x, t, probe.condition)
    part = asked(model.denoiser, x[:half], t, few)
    hint = "put the network into evaluation mode (`net.eval()`) before it is returned"
    for check, other, said in (
        ("determinism", again, "two calls with the same states and times"),
        ("batches", part, "the same states in a batch and in half of it"),
    ):
        apart = _apart(whole[: len(other)], other)
        words = f"{said} differ by {apart:.1e} of the answer"
        if apart > _CHANGED:
            message = f"{where}: {words}: {hint}, or freeze its random numbers"
            yield Finding(check=check, status=Status.ERROR, message=message)
            return
        if apart > _ROUNDED:
            yield Finding(check=check, status=Status.WARNING, message=words)
        else:
            yield _ok(check, words)


def _apart(one: Tensor, other: Tensor) -> float:
    size = float(one.double().norm())
    return float((one - other).double().norm()) / max(size, 1e-9)


def _denoising(where: str, model: Remembered, probe: Probe) -> Iterator[Finding]:
    """Whether answers are near clean images at each noise level, and if not, what they are."""
    errors = probe.errors(model)
    of_what = "images that it made itself" if probe.is_own else "the reference's images"
    said = f"noise on {of_what}: {_levels(errors)}"
    slip = likeliest_slip(model, probe, errors)
    lost = [error for error in errors if not math.isfinite(error.square)]
    if slip is not None:
        message = (
            f"{where}: it does not denoise as it should: {slip.words} ({said}; read so: "
            f"{_levels(slip.errors)})"
        )
        yield Finding(check="denoising", status=Status.ERROR, message=message)
    elif lost and bool(torch.isfinite(probe.images).all()):
        times = ", ".join(f"{error.t:.4g}" for error in lost)
        message = f"{where}: its answers at t = {times} are not finite"
        yield Finding(check="denoising", status=Status.ERROR, message=message)
    elif errors[0].units > _BAD:
        message = f"at little noise its answer is farther from the clean image than x is; {said}"
        yield Finding(check="denoising", status=Status.WARNING, message=message)
    elif any(error.units > _BAD for error in errors):
        message = f"its answer is farther from the clean image than a rescaled x is; {said}"
        yield Finding(check="denoising", status=Status.WARNING, message=message)
    else:
        yield _ok("denoising", said)


def _noisy_end(model: Remembered, probe: Probe) -> Finding:
    """Whether the answer is near the mean of the images where little else is left of them."""
    error = probe.error(model, probe.noisy_time(model.process))
    apart = (error.square / probe.variance) ** 0.5
    said = (
        f"at sigma/alpha {error.ratio:.2g} its answer is {apart:.2g} times as far from an image "
        "as the mean image is"
    )
    status = Status.OK if error.units <= _BAD_AT_END else Status.WARNING
    return Finding(check="noisy end", status=status, message=said)


def _levels(errors: Sequence[LevelError]) -> str:
    each = (f"{e.units:.2g} at sigma/alpha {e.ratio:.2g}" for e in errors)
    return "error over that of the best multiple of x " + ", ".join(each)


def _images(checked: Checked, model: Remembered, probe: Probe) -> Iterator[Finding]:
    """Whether the images that are made are of the reference's kind, and what the extractors make
    of them.
    """
    answer = probe.answer(model, probe.times(model.process)[0])
    made = images_of(checked.denoiser, answer)
    yield _of_kind(checked.where, made, checked.reference_images)
    n = len(made)
    (batch,) = checked.noise.batches(SEED, n, n, with_targets=True, solves=False)
    for metric in checked.metrics:
        yield _seen(metric, made, metric.with_stand_in(made, batch[1]))


def _of_kind(where: str, made: Tensor, real: Tensor | None) -> Finding:
    low, high = _ends(made)
    shape = tuple(made.shape[1:])
    said = f"the model's images {shape} go from {low:.2f} to {high:.2f}"
    if real is not None and real.ndim != made.ndim:
        message = (
            f"{where}: {said}, those of [reference] are {tuple(real.shape[1:])}: give real "
            "samples of the shape that the model makes"
        )
        return Finding(check="images", status=Status.ERROR, message=message)
    if real is not None and tuple(real.shape[1:]) != shape:
        message = f"{said}, those of [reference] are {tuple(real.shape[1:])}"
        return Finding(check="images", status=Status.WARNING, message=message)
    if not are_pictures(made):
        return _ok("images", said)
    if low > -_RANGE_SLACK and high > 0.5 and (real is None or _ends(real)[0] < -0.5):
        who = "extractors expect" if real is None else "[reference] has"
        message = (
            f"{where}: {said}, as of images in [0, 1]; {who} [-1, 1]: give the model "
            "`decode = lambda images: 2 * images - 1`"
        )
        status = Status.WARNING if real is None else Status.ERROR
        return Finding(check="images", status=status, message=message)
    if float(made.abs().mean()) > _LARGE:
        message = f"{said}; extractors expect [-1, 1]"
        return Finding(check="images", status=Status.WARNING, message=message)
    return _ok("images", said)


def _ends(images: Tensor) -> tuple[float, float]:
    """Between which numbers nearly all pixels lie."""
    flat = images.flatten()
    some = flat[:: max(1, len(flat) // _FEW_PIXELS)].float()
    return float(some.quantile(_RARE)), float(some.quantile(1 - _RARE))


def _seen(metric: Metric, made: Tensor, condition: Mapping[str, Tensor]) -> Finding:
    view, check = metric.view, SCORE if metric.kind == "score" else FEATURES
    try:
        seen = metric.seen(made, condition)
    except InvalidConfig as error:
        return Finding(check=check, status=Status.ERROR, message=str(error))
    except EvaluationFailed as error:
        message = f"{error}; where other images have such, search.check = false goes on"
        return Finding(check=check, status=Status.ERROR, message=message)
    except Exception as error:  # the user's code may raise anything; say where it came from
        message = (
            f"{view.where}: {view.name!r} failed on the model's images "
            f"{tuple(made.shape)} with {type(error).__name__}: {error}"
        )
        return Finding(check=check, status=Status.ERROR, message=message)
    wanted = metric.statistic.dimensions
    if wanted is None:
        low, high = float(seen[:, 0].min()), float(seen[:, 0].max())
        beside = " beside grey images" if metric.fine_targets else ""
        said = (
            f"{view.name}: from {low:.4g} to {high:.4g}{beside}, to be {metric.direction.value}d"
        )
        return _ok(check, said)
    if seen.shape[1] != wanted:
        message = (
            f"{view.where}: {view.name!r} makes {seen.shape[1]} features of an image, "
            f"the statistics of [reference] have {wanted}; make them with this extractor "
            "(`s3search tools reference`), or name theirs"
        )
        return Finding(check=check, status=Status.ERROR, message=message)
    return _ok(check, f"{view.name}: {wanted}, as the reference has")


def _ok(check: str, message: str) -> Finding:
    return Finding(check=check, status=Status.OK, message=message)
