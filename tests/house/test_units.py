"""How the tests are shared out among processes, and what becomes of those of one that dies."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.measure import ROOT

CONFTEST = """\
import os, signal
import pytest
from tests.support.units import share_out

def pytest_configure(config):
    config.addinivalue_line("markers", "cluster")
    config.addinivalue_line("markers", "slow")
    share_out(config)

@pytest.fixture(scope="module")
def of_one_process():
    pass

@pytest.fixture
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""
DIES = """def test_0(of_one_process, die): pass
def test_1(of_one_process): pass
def test_2(of_one_process): pass
def test_3(of_one_process, die): pass
"""
LIVES = "\n".join(f"def test_{i}(): pass" for i in range(9))
"""Each a unit of its own."""


def test_what_a_dead_process_left_is_handed_out_again(tmp_path: Path) -> None:
    """A test that a process died of fails, once; every other one is run, once."""
    texts = {"conftest.py": CONFTEST, "test_dies.py": DIES, "test_lives.py": LIVES}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -n 2 --dist loadgroup -rA -p xdist")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        timeout=100,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    failed = re.findall(r"^FAILED \S*(test_dies\S*)", done.stdout, re.MULTILINE)
    passed = re.findall(r"^PASSED \S*(test_\w*.py::\S*)", done.stdout, re.MULTILINE)
    assert sorted(failed) == ["test_dies.py::test_0", "test_dies.py::test_3"]
    lives = [f"test_lives.py::test_{i}" for i in range(9)]
    assert sorted(passed) == ["test_dies.py::test_1", "test_dies.py::test_2", *lives]
