"""docs/models-diffusers.md: its study files are valid, and it leaves nothing out."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest

import s3search
from s3search.models.diffusers import load
from s3search.models.diffusers.loading import PIPELINES
from s3search.processes import vp_discrete
from s3search.run.launching import space_of
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.study.file.config import parse_config

PAGE = Path(s3search.__file__).parents[1] / "docs" / "models-diffusers.md"
TEXT = PAGE.read_text(encoding="utf-8")
GUIDANCE = PAGE.parent / "how-to" / "guidance.md"
PRESETS = PAGE.parents[1] / "search_spaces" / "studies"
STUDIES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def test_there_is_a_study_file_for_each_kind() -> None:
    (study,) = STUDIES  # what no preset has
    assert "ddpm" in study
    assert {"ldm-bedroom", "dit", "sd15", "sdxl", "sd3", "flux"} <= {
        path.stem for path in PRESETS.glob("*.toml")
    }


@pytest.mark.parametrize("text", STUDIES)
def test_study_files_are_valid(text: str) -> None:
    config = parse_config(tomllib.loads(text))
    inspect.signature(load).bind(**config.model.options)
    space_of(config)


def test_every_key_and_every_pipeline_is_on_the_page() -> None:
    keys = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", TEXT.split("## Keys")[1], re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(keys)))
    assert named == set(inspect.signature(load).parameters)
    assert all(f"`{kind}`" in TEXT for kind in PIPELINES)


def test_an_interval_is_taken_along_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GUIDANCE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(from s3search import.*?)```", text, re.DOTALL)
    published.ddim(vp_discrete(), nfe=4, spacing="uniform").save(tmp_path / "schedule.json")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(GUIDANCE), "exec"), {"__name__": "example"})
    patch = Schedule.load(tmp_path / "guided.json").model_patch
    assert patch is not None and patch.guidance_scale == (1.0, 5.0, 5.0, 5.0)
