"""Hostile files: every reader reads them or refuses them with a sentence."""

from pathlib import Path

import pytest

from tests.formats.fuzz.readers import READERS
from tests.formats.fuzz.running import run

_INPUTS = 60  # of each reader; `python -m tests.formats.fuzz 10000` is the run by hand
_IN_THE_SUITE = [name for name, reader in READERS.items() if not reader.is_slow]


@pytest.mark.parametrize("name", _IN_THE_SUITE)
def test_a_valid_file_is_read(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    for beside, content in reader.beside().items():
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).write_bytes(content)
    for sample in reader.samples():
        (tmp_path / sample.name).write_bytes(sample.valid)
        reader.read(tmp_path / sample.name)


@pytest.mark.parametrize("name", _IN_THE_SUITE)
def test_a_hostile_file_is_read_or_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    assert run(name, READERS[name], tmp_path, range(_INPUTS)).faults == {}
