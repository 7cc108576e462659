"""The check of a machine: its rows run on a CPU, and say what is wrong."""

import functools
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks.gpu_check import __main__ as gpu_check
from tests.benchmarks.gpu_check.placement import Found, Watch, numbers_of, rows_of
from tests.benchmarks.gpu_check.setting import SIZES, Row, Setting, Verdict

_SETTING = Setting(device=torch.device("cpu"), size=SIZES["quick"])
_META = torch.device("meta")


def test_all_rows_run_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cpu", "--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    verdicts = {row["check"]: row["verdict"] for row in rows}
    assert "fail" not in verdicts.values()
    assert verdicts["out of memory: the batch is halved"] == "pass"
    assert verdicts["2 Ray workers, gpus_per_worker = 0"] == "pass"
    assert {f"placement: {part}" for part in ("denoiser", "noise", "loss")} <= verdicts.keys()
    assert all(row["why"] for row in rows if row["verdict"] == "not here")


def test_a_row_that_fails_is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Setting) -> Iterator[Row]:
        yield Row(check="first", verdict=Verdict.PASS, found="something")
        raise ValueError("no such thing")

    monkeypatch.setattr(gpu_check, "CHECKS", (broken,))
    first, second = gpu_check.run(_SETTING, (broken,))
    assert (first.row.verdict, second.row.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert second.row.why == "ValueError: no such thing"
    assert gpu_check.main(["--device", "cpu", "--quick"]) == 1
    assert "ValueError: no such thing" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_here_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 2
    assert "take --device cpu" in capsys.readouterr().err


@dataclass(slots=True)
class _Holder:
    queue: Any
    again: Any = None


def test_numbers_are_found_wherever_an_object_keeps_them() -> None:
    module = torch.nn.Linear(2, 3, device=_META)
    hidden = torch.zeros(5)

    def function() -> torch.Tensor:
        return hidden

    holder = _Holder(deque([{"a": np.zeros(4)}, module, functools.partial(print, function)]))
    holder.again = holder
    found = {each.path: (each.device, each.n_bytes) for each in numbers_of(holder, "it")}
    assert found == {
        "it.queue.0.a": ("cpu", 32),
        "it.queue.1.weight": ("meta", 24),
        "it.queue.1.bias": ("meta", 12),
        "it.queue.2.given.0.closure0": ("cpu", 20),
    }


def test_what_lies_elsewhere_fails_by_its_path() -> None:
    held = {
        "denoiser": [Found("denoiser.weight", "meta", 4), Found("denoiser.bias", "cpu", 4)],
        "plan": [Found("plan.p", "cpu", 4)],
        "new": [Found("new.cache", "meta", 4)],
    }
    denoiser, plan, new = rows_of(held, _META)
    assert (denoiser.verdict, plan.verdict, new.verdict) == ("fail", "pass", "fail")
    assert denoiser.found == "1 on meta, 1 on cpu, 0.0 MiB"
    assert denoiser.why == "should be on meta: denoiser.bias"
    assert new.why == "nobody says where it belongs: new.cache"


def test_work_off_the_device_is_seen_and_copies_are_not_work() -> None:
    large = torch.ones(100, 100)
    with Watch(_META) as watch:
        large.clone().to(torch.float64)
        large.to(_META) + 1.0
        torch.ones(3) + 1.0
    assert watch.row().why == "work off meta: clone"
    with Watch(_META) as quiet:
        torch.randn(100, 100).to(_META)
    assert quiet.row().verdict is Verdict.PASS
