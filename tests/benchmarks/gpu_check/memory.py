"""What happens where memory runs out, and what polishing keeps of it."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.polish.polishing import PolishSettings, polish
from tests.benchmarks.gpu_check.setting import (
    TOO_SMALL,
    Row,
    Setting,
    Verdict,
    mebibytes,
    value_of,
)

_CLOSE = 1e-3  # of a distance: other batches add up in another order
_LEFT = 0.4  # of what a batch needs
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def halving(setting: Setting) -> Iterator[Row]:
    """An evaluation with too little memory for its batch: a GPU's is filled up, a CPU's denoiser
    says that there is none.
    """
    n = setting.size.n_images
    plain = setting.evaluator(batch_size=n)
    question = setting.question()
    if setting.is_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
        before = torch.cuda.memory_allocated(setting.device)
        wanted = value_of(plain, question)
        needed = torch.cuda.max_memory_allocated(setting.device) - before
        evaluator, how = setting.evaluator(batch_size=n), "all but a part is taken"
        del plain
        ballast = _taken(setting, round(_LEFT * needed))
    else:
        wanted, how, ballast = value_of(plain, question), "said by the denoiser", None
        evaluator = setting.evaluator(batch_size=n, most=n // 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        off = abs(value_of(evaluator, question) / wanted - 1.0)
    del ballast
    said = sum("out of memory" in str(each.message) for each in caught)
    is_right = off < _CLOSE and said > 0 and evaluator.batch_size < n
    yield Row(
        check="out of memory: the batch is halved",
        verdict=Verdict.PASS if is_right else Verdict.FAIL,
        found=f"from {n} to {evaluator.batch_size} images, {said} warnings ({how})",
        why=f"the distance is off by {off:.1e}",
        numbers={"images": evaluator.batch_size, "off": off},
    )


def _taken(setting: Setting, left: int) -> Tensor:
    """A tensor that leaves so many bytes of the GPU."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(setting.device)[0]
    return torch.empty(max(free - left, 1), dtype=torch.uint8, device=setting.device)


def recomputation(setting: Setting) -> Iterator[Row]:
    """A polish whose calls keep what derivatives need, and one whose calls are made again."""
    evaluator = setting.evaluator()
    kept, first = _peak_of_polish(evaluator, setting, recompute=False)
    again, second = _peak_of_polish(evaluator, setting, recompute=True)
    off = abs(second - first) / max(abs(first), 1e-12)
    verdict, why = Verdict.PASS, f"the losses differ by {off:.1e}"
    if off > _CLOSE:
        verdict = Verdict.FAIL
    elif not setting.size.is_timed or not (setting.is_gpu or _RESET.exists()):
        verdict, why = Verdict.NOT_HERE, TOO_SMALL
    elif not again < kept:
        verdict, why = Verdict.FAIL, "making calls again saves nothing"
    yield Row(
        check="memory of a polish with and without recomputation",
        verdict=verdict,
        found=f"{mebibytes(again)} with, {mebibytes(kept)} without, for {setting.size.n_polished} "
        "images",
        why=why,
        numbers={"with": again, "without": kept, "off": off},
    )


def _peak_of_polish(
    evaluator: Evaluator, setting: Setting, *, recompute: bool
) -> tuple[float, float]:
    """The bytes that one iteration takes at most beside what is there before, and its loss."""
    n = setting.size.n_polished
    settings = PolishSettings(iterations=1, n_images=n, recompute=recompute)
    before = _reset_peak(setting)
    reply = polish(
        evaluator.denoiser,
        evaluator.metric,
        setting.question().schedule,
        settings,
        noise=evaluator.noise,
        noise_seed=0,
        batch_size=n,
    )
    return _peak(setting) - before, reply.made.losses[0]


def _reset_peak(setting: Setting) -> float:
    """Bytes in use, from which the highest mark is counted again."""
    if setting.is_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
        return float(torch.cuda.memory_allocated(setting.device))
    if _RESET.exists():
        _RESET.write_text("5")  # man proc_pid_clear_refs: resets the peak resident set size
    return _peak(setting)


def _peak(setting: Setting) -> float:
    """The highest mark of bytes in use; 0 on a CPU that does not tell."""
    if setting.is_gpu:
        return float(torch.cuda.max_memory_allocated(setting.device))
    if not _STATUS.exists():
        return 0.0
    line = next(own for own in _STATUS.read_text().splitlines() if own.startswith("VmHWM"))
    return 1024.0 * float(line.split()[1])
