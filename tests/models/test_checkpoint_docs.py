"""The page of checkpoints: its study files are valid, and its own network is evaluated."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import s3search
from s3search import cli
from s3search.models.edm.unets import SongConfig
from s3search.models.guided_diffusion.settings import AdmConfig, ClassifierConfig
from s3search.processes import vp_linear
from s3search.run.launching import space_of
from s3search.schedules import published
from s3search.study.file.config import parse_config

PAGE = (Path(s3search.__file__).parents[1] / "docs" / "models-checkpoints.md").read_text("utf-8")
STUDIES = re.findall(r"<!-- study -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
TABLES = re.findall(r"(?<!<!-- study -->\n)```toml\n(.*?)```", PAGE, re.DOTALL)
(MODULE,) = re.findall(r"<!-- test -->\n```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", STUDIES)
def test_a_study_file_of_the_page_is_valid(text: str) -> None:
    config = parse_config(tomllib.loads(text))
    assert space_of(config)
    if config.model.loader == "guided_diffusion":
        AdmConfig.model_validate(config.model.options["config"])


def test_the_tables_of_the_page_are_valid() -> None:
    network, guidance = (tomllib.loads(text) for text in TABLES)
    SongConfig.model_validate(network["model"]["config"])
    ClassifierConfig.model_validate(guidance["classifier_config"])


def test_the_network_of_the_page_is_evaluated_by_its_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_models.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, type[torch.nn.Module]] = {}
    exec(MODULE, names)
    torch.save(names["MyNetwork"](width=32).state_dict(), "my_network.pt")
    (study,) = (text for text in STUDIES if "my_models" in text)
    Path("study.toml").write_text(study, encoding="utf-8")
    published.ddim(vp_linear(), nfe=3).save("schedule.json")
    words = ("evaluate", "schedule.json", "study.toml", "--n-images", "50", "--json")
    monkeypatch.setattr(sys, "argv", ["s3search", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_images"], found["nfe"]) == (50, 3)
