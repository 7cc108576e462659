"""Images a second of a search's evaluations against bare calls of the network."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.spec import PRECISIONS, Precision
from tests.benchmarks.gpu_check.setting import (
    NFE,
    NO_BFLOAT16,
    TOO_SMALL,
    Row,
    Setting,
    Verdict,
    mebibytes,
    value_of,
)

_ROUNDS = 3
_LEAST_SHARE = {"cuda": 0.85, "cpu": 0.75}  # of the time that is the network's
_CLOSE = 1e-2  # of a distance, between a network and its compiled self


def batch_sizes(setting: Setting) -> Iterator[Row]:
    """The size that a worker chooses, and what a call of it takes."""
    evaluator = setting.evaluator()
    size, memory, fits = evaluator.batch_size, "", True
    if setting.is_gpu:
        free, total = torch.cuda.mem_get_info(setting.device)
        torch.cuda.reset_peak_memory_stats(setting.device)
        value_of(evaluator, setting.question(n_images=size))
        peak = torch.cuda.max_memory_allocated(setting.device)
        fits = evaluator.batch_size == size and peak < free
        memory = f"; at most {mebibytes(peak)} in use of {mebibytes(total)}"
    yield Row(
        check="batch size chosen",
        verdict=Verdict.PASS if fits else Verdict.FAIL,
        found=f"{size} images{memory}",
        why="" if fits else "an evaluation of one batch runs out of memory",
        numbers={"images": size},
    )


def rates(setting: Setting) -> Iterator[Row]:
    """A row for each precision: search and bare calls in turn."""
    for precision in PRECISIONS:
        yield _rate(setting, precision)


def _rate(setting: Setting, precision: Precision) -> Row:
    check = f"search against bare calls, {precision}"
    if not setting.size.is_timed:
        return Row(check=check, verdict=Verdict.NOT_HERE, found="", why=TOO_SMALL)
    if precision == "bfloat16" and not setting.has_bfloat16:
        return Row(check=check, verdict=Verdict.NOT_HERE, found="", why=NO_BFLOAT16)
    evaluator = setting.evaluator(precision=precision)
    bare = bare_calls(evaluator, setting, precision)
    n = setting.size.n_images
    search, calls = _in_turn(setting, lambda: value_of(evaluator, setting.question()), bare)
    share, least = calls / search, _LEAST_SHARE[setting.device.type]
    return Row(
        check=check,
        verdict=Verdict.PASS if share >= least else Verdict.FAIL,
        found=f"{n / search:,.1f} images/s, bare {n / calls:,.1f}: {share:.0%}",
        why=f"at least {least:.0%} is asked for",
        numbers={"search": n / search, "bare": n / calls, "share": share},
    )


def bare_calls(
    evaluator: Evaluator, setting: Setting, precision: Precision = "float32"
) -> Callable[[], None]:
    """The network's calls of an evaluation and nothing else, in the same batches."""
    n, most = setting.size.n_images, evaluator.batch_size
    sizes = [most] * (n // most) + ([n % most] if n % most else [])
    times = setting.question().schedule.times[:NFE]
    shape, dtype = evaluator.denoiser.sample_shape, PRECISIONS[precision]
    states = {
        (size, t): t * torch.randn((size, *shape), device=setting.device)
        for size in {*sizes}
        for t in times
    }

    @torch.inference_mode()
    def run() -> None:
        with nullcontext() if dtype is None else torch.autocast(setting.device.type, dtype=dtype):
            for size in sizes:
                for t in times:
                    x = states[size, t]
                    evaluator.denoiser(x, x.new_full((size,), t))

    return run


def _in_turn(
    setting: Setting, first: Callable[[], object], second: Callable[[], object]
) -> tuple[float, float]:
    """Median seconds of two things that take turns, once they are warm."""
    first(), second()
    found = [(setting.seconds(first), setting.seconds(second)) for _ in range(_ROUNDS)]
    one, other = zip(*found, strict=True)
    return statistics.median(one), statistics.median(other)


def compiled(setting: Setting) -> Iterator[Row]:
    """The evaluation with the network compiled, and as CUDA graphs."""
    names = {"default": "torch.compile", "reduce-overhead": "CUDA graphs"}
    if not setting.is_gpu:
        why = "no GPU; compiling this network for a CPU takes longer than all other rows"
        yield from (
            Row(check=n, verdict=Verdict.NOT_HERE, found="", why=why) for n in names.values()
        )
        return
    plain = setting.evaluator()
    for mode, name in names.items():
        yield _compiled(setting, plain, mode, name)


def _compiled(setting: Setting, plain: Evaluator, mode: str, name: str) -> Row:
    n, size = setting.size.n_images, min(plain.batch_size, setting.size.n_images)
    try:
        evaluator = setting.evaluator(compiled=mode, batch_size=size)
        value_of(evaluator, setting.question())
    except Exception as error:  # what compiles is torch's, and may need tools that are not here
        why = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        return Row(check=name, verdict=Verdict.NOT_HERE, found="", why=why)
    own, eager = _in_turn(
        setting,
        lambda: value_of(evaluator, setting.question()),
        lambda: value_of(plain, setting.question()),
    )
    question = setting.question()
    off = abs(value_of(evaluator, question) / value_of(plain, question) - 1.0)
    return Row(
        check=name,
        verdict=Verdict.PASS if off < _CLOSE else Verdict.FAIL,
        found=f"{n / own:,.1f} images/s of search, {eager / own:.2f} times as many",
        why=f"the distance is off by {off:.1e}",
        numbers={"search": n / own, "gain": eager / own, "off": off},
    )
