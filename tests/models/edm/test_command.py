"""`s3search tools checkpoint`: pickles looked into and converted, none of them run."""

import json
from pathlib import Path

import pytest

from s3search import cli
from s3search.models import edm
from tests.models.edm.pickled import RunsCode, dump, own_network
from tests.models.edm.test_edm import SONG


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["s3search", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_convert_writes_a_file_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = dump(tmp_path / "net.pkl", {"ema": own_network(SONG)[1]})
    output = tmp_path / "net.safetensors"
    words = ("tools", "checkpoint", "convert", str(source), "-o", str(output))
    assert _run(monkeypatch, *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["model_type"] == "SongUNet"
    assert edm.load(output).sample_shape == (3, 8, 8)
    assert _run(monkeypatch, *words) == 0
    assert "model_type SongUNet" in capsys.readouterr().out


def test_inspect_names_what_would_be_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "it_ran"
    source = dump(tmp_path / "net.pkl", {"ema": own_network(SONG)[1], "x": RunsCode(target)})
    assert _run(monkeypatch, "tools", "checkpoint", "inspect", str(source), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "torch_utils.persistence._reconstruct_persistent_obj" in found["calls"]
    assert found["unusual"] == ["builtins.exec"]
    assert _run(monkeypatch, "tools", "checkpoint", "inspect", str(source)) == 0
    assert "builtins.exec  (no checkpoint" in capsys.readouterr().out
    assert not target.exists()


def test_what_cannot_be_converted_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "net.safetensors"
    for name in ("no.pkl", "text.pkl"):
        (tmp_path / "text.pkl").write_text("text")
        words = ("tools", "checkpoint", "convert", str(tmp_path / name), "-o", str(output))
        assert _run(monkeypatch, *words) == 2
        assert name in capsys.readouterr().err
    assert not output.exists()
