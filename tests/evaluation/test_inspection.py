"""``s3search tools inspect-model``: what a model is, and what a schedule costs on it."""

import json
import sys
from pathlib import Path

import pytest

from s3search.cli import run
from s3search.cli.output import OUT
from s3search.models import digits
from s3search.processes import edm, vp_linear
from s3search.schedules import published
from s3search.schedules.layers import with_skipped
from tests.support.studies import STUDY

DIGITS = STUDY.replace("tests.support.plugins:gaussian", "digits")


@pytest.fixture(name="study")
def _study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(OUT, "_width", 100)  # whenever it was made
    path = tmp_path / "study.toml"
    path.write_text(DIGITS.format(folder=tmp_path))
    return path


def _said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["s3search", "tools", "inspect-model", *map(str, arguments)])
    code = run()
    out, err = capfd.readouterr()
    return code, out, err


def test_a_model_is_told_with_its_blocks(
    study: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _said(monkeypatch, capfd, study)
    assert (code, err) == (0, "")
    assert "digits: edm process, sample shape 1 x 8 x 8" in out
    assert "1,020,992 multiply-adds a call" in out and "condition: labels 1" in out
    assert out.count("_Block") == 3 and out.count("25.7 %") == 3


def test_the_cost_of_a_schedule_is_told_call_by_call(
    study: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = study.with_name("schedule.json")
    with_skipped(published.ddim(edm(), nfe=3), [(), (0, 2), (1,)]).save(file)
    code, out, _ = _said(monkeypatch, capfd, study, "--schedule", file, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["n_parameters"] == sum(p.numel() for p in digits.load().parameters())
    share = told["blocks"][1]["share"]
    assert told["blocks"][1]["name"] == "blocks.1"
    assert [call["skipped"] for call in told["schedule"]["calls"]] == [[], [0, 2], [1]]
    assert told["schedule"]["cost"] == pytest.approx(3 - 3 * share)
    code, out, _ = _said(monkeypatch, capfd, study, "--schedule", file)
    assert code == 0 and "3 calls cost 2.230 NFE" in out


def test_what_does_not_fit_the_model_is_one_sentence(
    study: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = study.with_name("schedule.json")
    with_skipped(published.ddim(edm(), nfe=2), [(), (7,)]).save(file)
    code, _, err = _said(monkeypatch, capfd, study, "--schedule", file)
    assert code == 2 and "there is no block 7, this network has blocks 0 to 2" in err
    published.ddim(vp_linear(), nfe=2).save(file)
    code, _, err = _said(monkeypatch, capfd, study, "--schedule", file)
    assert code == 2 and "process: this is a schedule for" in err


def test_a_model_without_modules_has_no_blocks(
    study: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = _said(monkeypatch, capfd, study, "--set", "model.loader=tests.support.plugins:gaussian")
    assert told[0] == 0 and "no block can be left out of a call" in told[1]
    plain = study.with_name("schedule.json")
    published.ddim(edm(), nfe=2).save(plain)
    override = ("--set", "model.loader=tests.support.plugins:gaussian", "--json")
    code, out, _ = _said(monkeypatch, capfd, study, *override, "--schedule", plain)
    assert code == 0 and json.loads(out)["schedule"]["cost"] == 2.0
