"""A machine with a GPU, checked: ``python -m tests.benchmarks.gpu_check`` (`make gpu-check`).

One table, a row for each claim: where numbers lie, batch sizes, images a second against bare
calls, compiled networks, distances in float64, workers that share a GPU, memory that runs out,
bfloat16's ranks, a polish's memory.  The exit status is 1 if one fails.  Without a GPU it runs
smaller with ``--device cpu``, and ``--quick`` tries the rows themselves in seconds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.gpu_check import algebra, memory, placement, ranking, sharing, speed
from tests.benchmarks.gpu_check.setting import SIZES, Row, Setting, Verdict

Check = Callable[[Setting], Iterator[Row]]

CHECKS: tuple[Check, ...] = (
    placement.placement,
    speed.batch_sizes,
    speed.rates,
    speed.compiled,
    algebra.distances,
    ranking.ranks,
    memory.halving,
    memory.recomputation,
    sharing.two_workers,
)

_FILE_WIDTH = 200  # columns, where no terminal says how many
_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.NOT_HERE: "yellow"}


@dataclass(frozen=True, slots=True)
class Timed:
    """A row, and the seconds since the one before."""

    row: Row
    seconds: float


def run(setting: Setting, checks: Sequence[Check]) -> Iterator[Timed]:
    """All rows as they come; a check that raises is a row that fails."""
    for check in checks:
        began = time.perf_counter()
        try:
            for row in check(setting):
                yield Timed(row, time.perf_counter() - began)
                began = time.perf_counter()
        except Exception as error:  # a check may find any defect; the others are wanted too
            why = f"{type(error).__name__}: {error}"
            name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
            row = Row(check=name, verdict=Verdict.FAIL, found="", why=why)
            yield Timed(row, time.perf_counter() - began)
        if setting.is_gpu:
            torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 if a row fails, 2 if the GPU that was asked for is not there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny, to try the rows themselves")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(
            "--device cuda: torch sees no GPU here; install a build of torch for it, or take "
            "--device cpu\n"
        )
        return 2
    size = SIZES["quick" if asked.quick else asked.device]
    setting = Setting(device=torch.device(asked.device), size=size)
    found = []
    for each in run(setting, CHECKS):
        sys.stderr.write(f"{each.seconds:6.1f} s  {each.row.verdict:8}  {each.row.check}\n")
        found.append(each)
    title = f"{machine(setting)}, torch {torch.__version__}"
    if asked.json:
        rows = [{**asdict(each.row), "seconds": each.seconds} for each in found]
        sys.stdout.write(json.dumps({"machine": title, "rows": rows}, indent=1) + "\n")
    else:
        width = None if sys.stdout.isatty() else _FILE_WIDTH
        Console(width=width).print(table(title, found))
    return int(any(each.row.verdict is Verdict.FAIL for each in found))


def machine(setting: Setting) -> str:
    """The device in words."""
    if setting.is_gpu:
        return torch.cuda.get_device_name(setting.device)
    return f"a CPU, {torch.get_num_threads()} threads"


def table(title: str, found: Sequence[Timed]) -> Table:
    """All rows."""
    made = Table("check", "verdict", "found", "why", "seconds", title=title)
    for each in found:
        row, style = each.row, _STYLES[each.row.verdict]
        seconds = f"{each.seconds:.1f}"
        made.add_row(row.check, f"[{style}]{row.verdict}[/]", row.found, row.why, seconds)
    return made


if __name__ == "__main__":
    sys.exit(main())
