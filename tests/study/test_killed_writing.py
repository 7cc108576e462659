"""Upgrades, publications and exports that are killed leave what was there, or all of it."""

import json
import subprocess
import sys

_KILLS = 2  # at each stage; `python -m tests.benchmarks.kill_writing 25` is the run by hand
_STAGES = 5 + 2 + 4 * 2 + 1 + 1  # of upgrades, of publications, of exports


def test_a_kill_leaves_nothing_half_written() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.kill_writing", str(_KILLS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line)["kills"] for line in ended.stdout.splitlines()]
    assert sum(found) == _KILLS * _STAGES
