"""`s3search export --schedule`, the folder for diffusers, and the page that describes them."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from s3search import cli
from s3search.formats.exporters import FORMATS
from s3search.formats.exporters.runtime import run_plan
from s3search.processes import edm, vp_discrete
from s3search.schedules import published
from s3search.schedules.published.listed import LISTED_SOLVERS
from s3search.schedules.schedule import Schedule

_DOCS = Path(__file__).resolve().parents[3] / "docs" / "export.md"


def _run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["s3search", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture
def schedule(tmp_path: Path) -> Path:
    path = tmp_path / "schedule.json"
    published.unipc(vp_discrete(), nfe=4).save(path)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_writes_and_prints_its_report(
    schedule: Path,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if form == "sigmas":
        LISTED_SOLVERS["euler"].on(vp_discrete(), (999.0, 600.0, 200.0, 9.0)).save(schedule)
    words = ("export", "--schedule", schedule, "--format", form, "-o", tmp_path / "made")
    assert _run(monkeypatch, *words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("NFE 4")
    kinds = {line.partition(":")[0] for line in said if not line.startswith("wrote")}
    assert kinds == {"exact", "approximated", "refused"}
    assert _run(monkeypatch, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert all(Path(file).is_file() for file in found["files"])
    assert found["report"]["exact"]
    assert all(item["measured"] >= 0 for item in found["report"]["approximated"])


def test_a_list_is_printed_where_no_file_is_named(
    schedule: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", "--schedule", schedule, "--format", "sigmas")
    assert _run(monkeypatch, *words) == 2
    assert "steps: --format sigmas is for Euler" in capsys.readouterr().err
    own = LISTED_SOLVERS["dpmpp_2m"].on(vp_discrete(), (999.0, 600.0, 200.0))
    own.save(schedule)
    assert _run(monkeypatch, *words) == 0
    text = capsys.readouterr().out
    names: dict[str, Any] = {}
    exec(text, names)
    assert names["timesteps"] == [999, 600, 200]
    assert names["sigmas"][-1] == 0.0 and len(names["sigmas"]) == 4
    assert _run(monkeypatch, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sigmas"] == names["sigmas"] and found["schedule_id"] == own.id


def test_the_diffusers_folder_is_loaded_by_diffusers(
    schedule: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers = pytest.importorskip("diffusers", reason="pip install diffusers transformers")
    integration: Any = pytest.importorskip("s3search.integrations.diffusers")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "pipe" / "scheduler")
    folder = tmp_path / "folder"
    words = ("export", "--schedule", schedule, "--format", "diffusers", "-o", folder)
    assert _run(monkeypatch, *words, "--pipeline", tmp_path / "pipe") == 0
    loaded = integration.S3Scheduler.from_pretrained(folder)
    assert loaded.num_steps == 4

    class Pipeline:
        scheduler = diffusers.DDPMScheduler()

    names = runpy.run_path(str(folder / "s3_pipeline.py"))
    scheduler = names["with_schedule"](Pipeline()).scheduler
    assert scheduler.timesteps.tolist() == loaded.timesteps.tolist()
    exported = json.loads((folder / "schedule.json").read_text())
    assert Schedule.from_dict(exported).id == Schedule.load(schedule).id
    assert exported["plan"]["rows"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--schedule", "s.json"), "--output: names no file"),
        (("-o", "x.json"), "needs the name of a study, or --schedule FILE"),
        (("t", "--schedule", "s.json", "-o", "x"), "was given beside a study's name"),
        (("--schedule", "s.json", "-o", "x", "--format", "comfy"), "did you mean 'comfyui'?"),
        (("--schedule", "absent.json", "-o", "x"), "absent.json: cannot be read"),
        (("--schedule", "s.json", "-o", "x", "--pipeline", "p"), "--pipeline: format 'json'"),
        (("t", "-o", "x", "--ems", "e"), "--ems: a study names its own"),
        (("--schedule", "s.json", "-o", "s.json", "--format", "diffusers"), "writes a folder"),
        (
            ("--schedule", "s.json", "-o", "x", "--format", "diffusers", "--pipeline", "absent"),
            "holds no scheduler/scheduler_config.json",
        ),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_two(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    published.ddim(edm(), nfe=3).save("s.json")
    assert _run(monkeypatch, "export", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_page_names_every_format_and_holds_the_executor() -> None:
    text = _DOCS.read_text(encoding="utf-8")
    assert not [name for name in FORMATS if f"`{name}`" not in text]
    assert Path(run_plan.__file__).read_text(encoding="utf-8") in text
