"""What would never end, or fill the memory, is refused with a sentence."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s3search.cli import run
from s3search.errors import InvalidConfig, InvalidSchedule, S3SearchError
from s3search.evaluation.limits import MOST_IMAGES
from s3search.metrics.references import StatisticsFile
from s3search.models.statistics.gaussian import GaussianStatistics
from s3search.processes import edm, vp_discrete
from s3search.rules.ems import EmsStatistics
from s3search.schedules import published
from s3search.schedules.schedule import MOST_STEPS, Schedule
from s3search.show.dashboard import Login
from s3search.study.file.config import config_from_text, load_config
from tests.support.studies import STUDY, study_file

_SECONDS = 20.0


def _said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> str:
    monkeypatch.setattr(sys, "argv", ["s3search", *map(str, words)])
    began = time.monotonic()
    assert run() == 2
    assert time.monotonic() - began < _SECONDS
    return capsys.readouterr().err


def _wire(**changes: object) -> str:
    return json.dumps({**published.ddim(edm(), nfe=3).to_dict(), **changes})


_NESTED = "[" * 5000 + "]" * 5000
_DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "content",
    [
        _NESTED,
        '{"a":' * 5000 + "1" + "}" * 5000,
        _wire(times=["#"]).replace('"#"', _DIGITS),
        _wire(times=["#"]).replace('"#"', "9" * 4000),
        _wire(version="#").replace('"#"', _DIGITS),
        _wire(provenance={"a": "#"}).replace('"#"', _NESTED),
    ],
)
def test_deep_and_long_json_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InvalidSchedule):
        Schedule.load(path)


@pytest.mark.parametrize("value", [_NESTED, _DIGITS, "0x" + "f" * 5000, "-0x" + "f" * 20])
@pytest.mark.parametrize("key", ["study.seed", "model.options", "search.n_images", "other.key"])
def test_deep_and_long_toml_is_refused(value: str, key: str, tmp_path: Path) -> None:
    table, _, name = key.partition(".")
    lines = STUDY.format(folder=tmp_path).replace(f"[{table}]", f"[{table}]\n{name} = {value}")
    text = lines if f"[{table}]" in lines else f"{lines}\n[{table}]\n{name} = {value}"
    with pytest.raises(InvalidConfig):
        config_from_text(text, "study.toml")
    if table != "model":  # whose options may be any word
        with pytest.raises(InvalidConfig):
            load_config(study_file(tmp_path), [f"{key}={value}"])


@pytest.mark.parametrize("command", ["show", "check", "launch"])
def test_a_device_without_an_end_is_no_file(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "more than 64 MB, which no such file has" in _said(
        monkeypatch, capsys, command, "/dev/zero"
    )


@pytest.mark.parametrize(
    "read", [EmsStatistics.load, GaussianStatistics.load, Login.from_file, StatisticsFile.load]
)
def test_readers_of_other_files_end_there_too(read: Callable[[Path], object]) -> None:
    with pytest.raises(S3SearchError):
        read(Path("/dev/zero"))


@pytest.mark.parametrize("sigma", [1e308, 1e19])
def test_a_level_that_no_network_can_square_is_none(sigma: float, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    wire = published.ddim(edm(), nfe=3).to_dict()
    path.write_text(json.dumps({**wire, "times": [sigma, *wire["times"][1:]]}))
    with pytest.raises(InvalidSchedule, match="networks square it in float32"):
        Schedule.load(path)


def test_training_steps_and_images_have_an_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="less than or equal to 1000000"):
        vp_discrete(n=10**12)
    for key in ("search.n_images", "validation.n_images"):
        with pytest.raises(InvalidConfig, match=key):
            load_config(study_file(tmp_path), [f"{key}={10**12}"])
        assert load_config(study_file(tmp_path), [f"{key}={MOST_IMAGES}"])


@pytest.mark.parametrize("form", ["diffusers", "k-diffusion", "comfyui"])
def test_an_export_that_grows_with_the_square_has_a_limit(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / "a.json"
    published.ddim(edm(), nfe=1000).save(long)
    words = ("export", "--schedule", long, "--format", form, "-o", tmp_path / "out")
    said = _said(monkeypatch, capsys, *words)
    assert "of at most 200 steps, found 1000; --format json has no such limit" in said
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_schedule_has_at_most_so_many_steps() -> None:
    wire = published.ddim(edm(), nfe=3).to_dict()
    steps = [wire["steps"][0]] * (MOST_STEPS + 1)
    times = [float(MOST_STEPS + 2 - i) for i in range(MOST_STEPS + 2)]
    with pytest.raises(InvalidSchedule, match=r"at most 200[01] items"):
        Schedule.from_dict({**wire, "nfe": None, "steps": steps, "times": times})
