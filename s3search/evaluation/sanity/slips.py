"""What a model that does not denoise may be instead: its answer, its times, its images read
otherwise.

A reading is another denoiser made of the same network.  It is believed only where it denoises
well, better than any multiple of its input does, and far better than the model as it stands does;
so an untrained network, which denoises under no reading, is never taken for something else.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from s3search.evaluation.sanity.network import Retimed, Times, network_in
from s3search.evaluation.sanity.probe import LevelError, Probe, Remembered
from s3search.models.outputs import (
    AdaptedCallable,
    AdaptedModule,
    Output,
    adapter_of,
    weights_of,
    with_time,
)
from s3search.processes import Edm, Flow, NoiseProcess, VpDiscrete
from s3search.solvers.shapes import are_pictures

_GOOD = 1.3  # units of error that a denoiser of real images has at most, at every level
_GOOD_OF_OWN = 2.5  # where the images are a short solve's
_INFORMED = 0.6  # units at some level: any multiple of the input has one
_BLIND = 0.8  # units at every level where a denoiser knows nothing of structure
_FAR = 4.0  # times the error of the reading
_FAR_IN_TIME = 2.2  # where only the network's time is read otherwise
_HOPELESS = 10.0  # units: the images of a worse solve are none, whoever made them
_FLAT = 1e-3  # the variance of images that are all alike, which any constant denoises
_WHOLE_RANGE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """What the model seems to be, and what would do."""

    words: str
    errors: Sequence[LevelError]

    @property
    def size(self) -> float:
        """The mean logarithm of the reading's errors."""
        return sum(math.log(max(e.units, 1e-9)) for e in self.errors) / len(self.errors)


def likeliest_slip(model: Remembered, probe: Probe, found: Sequence[LevelError]) -> Slip | None:
    """The reading under which the model denoises, None where there is no clear one.

    ``found`` are the errors as it stands.  Of a model that denoises well a few calls say whether
    its network reads the times as it should; of another some dozens are spent, or some hundreds
    where the images are the model's own.
    """
    retimed = list(_retimed(model, probe))
    if not _is_suspicious(model, probe, found):
        noisy = found[-1]
        retimed = [] if probe.is_own else retimed
        retimed = [e for e in retimed if _units(e[1], probe, noisy) * _FAR_IN_TIME < noisy.units]
        others: list[tuple[str, list[LevelError]]] = []
    else:
        others = [(words, _errors(own, probe)) for words, own in _readings(model)]
        images = [] if probe.is_own else _other_images(probe.images)
        others += [(words, _errors(model, replace(probe, images=own))) for words, own in images]
    slips = [
        Slip(words=words, errors=errors)
        for tried, far in (
            ([(words, _errors(own, probe)) for words, own in retimed], _FAR_IN_TIME),
            (others, _FAR),
        )
        for words, errors in tried
        if _looks_good(errors, probe) and _is_far_better(errors, found, far)
    ]
    return min(slips, key=lambda slip: round(slip.size, 1), default=None)


def _is_suspicious(model: Remembered, probe: Probe, found: Sequence[LevelError]) -> bool:
    """Whether other readings are worth their calls: it denoises badly, or no better than a
    multiple of its input, which an untrained pipeline does with images of its own.
    """
    if _looks_good(found, probe):
        return False
    units = [error.units for error in found]
    if not probe.is_own:
        return True
    is_adapted = isinstance(model.denoiser, AdaptedCallable | AdaptedModule)
    return max(units) > _HOPELESS or (is_adapted and min(units) > _BLIND)


def _looks_good(errors: Sequence[LevelError], probe: Probe) -> bool:
    """Whether these are the errors of a denoiser that knows its images."""
    units = [error.units for error in errors]
    most = _GOOD_OF_OWN if probe.is_own else _GOOD
    return bool(units) and max(units) <= most and min(units) <= _INFORMED


def _errors(reading: Any, probe: Probe) -> list[LevelError]:
    """Nothing for a network that cannot be asked so, or makes one image only."""
    try:
        own = probe.solved(reading) if probe.is_own else probe
        return own.errors(reading) if own.variance > _FLAT else []
    except Exception:  # the user's code may raise anything where it is asked what it never was
        return []


def _units(reading: Any, probe: Probe, at: LevelError) -> float:
    """The reading's error at one level."""
    try:
        return probe.error(reading, at.t).units
    except Exception:  # as above
        return math.inf


def _is_far_better(errors: Sequence[LevelError], found: Sequence[LevelError], far: float) -> bool:
    """Whether a good reading's errors are far below those of the model as it stands, and nowhere
    clearly above; levels are compared one by one where there are as many.
    """
    good, now = ([error.units for error in each] for each in (errors, found))
    if len(good) != len(now):
        return max(now) > far * max(good)
    pairs = list(zip(good, now, strict=True))
    return any(was > max(_INFORMED, far * own) for own, was in pairs) and all(
        own <= _GOOD * max(was, _INFORMED) for own, was in pairs
    )


def _readings(model: Remembered) -> Iterator[tuple[str, Any]]:
    """Other denoisers of the same network, and what to say of each."""
    denoiser, process = model.denoiser, model.process
    read_as = getattr(denoiser, "output", None)
    known = [read_as] if isinstance(read_as, Output) else _outputs(process)
    for now in known:
        for output in _outputs(process):
            for sign in (1.0, -1.0):
                if (output, sign) != (now, 1.0) and (output is not Output.SAMPLE or sign > 0):
                    words = _words_of_output(now, output, sign, is_known=len(known) == 1)
                    yield words, _Reread(model, now, output, sign)
    if not isinstance(read_as, Output):
        for unit, times in _other_times(process)[1:]:
            elsewhere = Remembered(_AskedElsewhere(denoiser, times))
            yield from ((_words_of_time(unit), _Reread(elsewhere, w, w, 1.0)) for w in known)


def _retimed(model: Remembered, probe: Probe) -> Iterator[tuple[str, Any]]:
    """The denoiser with its network asked at other times, and what to say; nothing of a pipeline,
    whose file says them, nor where no network is found.
    """
    denoiser, process = model.denoiser, model.process
    is_adapted = isinstance(denoiser, AdaptedCallable | AdaptedModule)
    if isinstance(getattr(denoiser, "output", None), Output) and not is_adapted:
        return
    network: Any = None
    if not is_adapted:
        t = probe.times(process)[0]
        x = probe.state(process, t)[:2]
        few = {key: value[:2] for key, value in probe.condition.items()}
        network = network_in(denoiser, x, x.new_full((len(x),), t), few)
        if network is None:
            return
    for unit, times in _other_times(process):
        own = with_time(denoiser, times) if is_adapted else Retimed(denoiser, network, times)
        yield _words_of_time(unit), own


def _words_of_time(unit: str) -> str:
    return f"its network seems to expect times as {unit}: give it these (`time` of an adapter)"


class _Reread:
    """A denoiser whose answer, read as that of one output, was that of another."""

    def __init__(self, denoiser: Remembered, now: Output, output: Output, sign: float) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self._denoiser, self._now, self._output, self._sign = denoiser, now, output, sign

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        answer = self._denoiser(x, t, **condition)
        network_time = getattr(self._denoiser.denoiser, "network_time", lambda t: t)
        a, b = self._weights(self._now, network_time(t.double()))
        c, d = self._weights(self._output, t.double())
        return c * x + d * self._sign * (answer - a * x) / b

    def _weights(self, output: Output, t: Tensor) -> tuple[float, float]:
        if output is Output.SAMPLE:
            return 0.0, 1.0  # at times of any unit
        a, b = weights_of(output, self.process.alpha(t), self.process.sigma(t))
        return float(a[0]), float(b[0])


class _AskedElsewhere:
    """A denoiser that is asked at other times, arithmetic and all."""

    def __init__(self, denoiser: Any, network_time: Times) -> None:
        self.process, self.sample_shape = denoiser.process, denoiser.sample_shape
        self._denoiser, self.network_time = denoiser, network_time

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self._denoiser(x, self.network_time(t), **condition)  # type: ignore[no-any-return]


def _outputs(process: NoiseProcess) -> list[Output]:
    is_flow = isinstance(process, Flow)
    others = [Output.FLOW] if is_flow else [Output.V, Output.SCORE]
    return [Output.SAMPLE, Output.EPSILON, *others]


_MEANINGS = {
    Output.SAMPLE: "the clean image",
    Output.EPSILON: "epsilon, the noise",
    Output.V: "v = alpha eps - sigma x0",
    Output.FLOW: "the velocity eps - x0",
    Output.SCORE: "the score, -eps / sigma",
}


def _words_of_output(now: Output, output: Output, sign: float, *, is_known: bool) -> str:
    """What to say of a network whose answer is another one, or of the other sign."""
    adapter = f"s3search.models.{adapter_of(output)}"
    net = "net" if sign > 0 else "lambda x, t: -net(x, t)"
    if now is output:
        return (
            f"its network answers {_MEANINGS[output]} with the other sign: negate it, "
            f"{adapter}({net}, process)"
        )
    meaning = f"{'minus ' if sign < 0 else ''}{_MEANINGS[output]}"
    if now is Output.SAMPLE:
        return f"this looks like {meaning}: wrap it in `{adapter}({net}, process)`"
    what = "is" if is_known else "seems to be"
    return (
        f"its network's answer {what} taken for {_MEANINGS[now]} and looks like {meaning}: "
        f"use `{adapter}({net}, process)`"
    )


def _other_times(process: NoiseProcess) -> list[tuple[str, Times]]:
    """The process's own unit and others, in words and as functions of its time."""
    end = process.time_range[1]

    def ratio(t: Tensor) -> Tensor:
        return process.sigma(t) / process.alpha(t)

    own: tuple[str, Times] = (f"t itself, up to {end:g}", lambda t: t)
    logarithm: tuple[str, Times] = (
        "log(sigma / alpha) / 4, EDM's c_noise",
        lambda t: ratio(t).log() / 4,
    )
    match process:
        case Edm():
            return [own, logarithm, ("sigma / (1 + sigma), in [0, 1]", lambda t: t / (1 + t))]
        case VpDiscrete():
            whole = float(process.n)
            others = [(f"t / {process.n}, in [0, 1]", lambda t: t / whole)]
        case _:
            others = [
                ("1000 t, an index from 0 to 999", lambda t: 1000 * t),
                (f"{end:g} - t, which runs from noise to image", lambda t: end - t),
                (
                    f"1000 ({end:g} - t), which runs from noise to image",
                    lambda t: 1000 * (end - t),
                ),
            ]
    return [own, *others, ("sigma / alpha, a noise level", ratio), logarithm]


def _other_images(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Pictures as another model may have seen them, and what to say of it."""
    if not are_pictures(images):
        return
    if float(images.min()) < -_WHOLE_RANGE:
        to = "it seems to make images in {}, the reference has them in [-1, 1]: {}"
        yield (
            to.format("[0, 1]", "give it 2 x0 - 1, or `decode = lambda images: 2 * images - 1`"),
            (images + 1) / 2,
        )
        yield to.format("[0, 255]", "scale its images to [-1, 1]"), (images + 1) * 127.5
    else:
        yield (
            "the reference has images in [0, 1], the model makes them in [-1, 1]: give the "
            "reference as 2 * images - 1",
            2 * images - 1,
        )
    if images.shape[1] == 3:
        yield (
            "it seems to order the channels the other way round (BGR for RGB): flip them on "
            "one side",
            images.flip(1),
        )
