"""Studies with EMS statistics and schedules of the user's own: measured, searched from, exported,
or refused in one sentence before anything is written.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3search.cli import run
from s3search.errors import EvaluationFailed, InvalidConfig, StudyConflict
from s3search.evaluation.evaluator import Evaluator
from s3search.models.statistics import gaussian_statistics
from s3search.processes import edm, vp_linear
from s3search.rules import EmsStatistics
from s3search.run.launching import launch
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.search.questions import Rung, measure
from s3search.solvers.plan import check_table
from s3search.study.database.store import open_study
from s3search.study.results.progress import Progress
from tests.support.plugins import SHAPE, images
from tests.support.studies import content, searched_study, study_config, study_file


def _ems(shift: float = 0.0, shape: tuple[int, ...] = SHAPE) -> EmsStatistics:
    """Smooth statistics that differ at every pixel."""
    low, high = edm().lam(80.0), edm().lam(0.002)
    lam = np.linspace(low, high, 61).reshape(61, 1, 1, 1)
    pixel = np.linspace(0.0, 0.3, int(np.prod(shape))).reshape(shape)
    return EmsStatistics(
        lam_start=low,
        lam_end=high,
        l=1 / (1 + np.exp(lam + pixel + shift)),
        s=0.05 * np.sin(lam) - 0.1 * pixel,
        b=0.02 * np.cos(lam - pixel),
    )


@pytest.fixture
def ems(tmp_path: Path) -> EmsStatistics:
    """Statistics in ``tmp_path / "ems.safetensors"``."""
    found = _ems()
    found.save(tmp_path / "ems.safetensors")
    return found


def _v3(ems: EmsStatistics, nfe: int = 3) -> Schedule:
    return published.dpm_solver_v3(edm(), ems, nfe=nfe)


def _ignore(_: Progress) -> None:
    pass


def _cli(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["s3search", *map(str, words)])
    return run()


def _named(folder: Path) -> str:
    return f"statistics.ems={folder / 'ems.safetensors'}"


def test_a_v3_schedule_is_measured_with_the_statistics_of_the_study(
    tmp_path: Path, ems: EmsStatistics
) -> None:
    config = study_config(tmp_path, _named(tmp_path))
    evaluator = Evaluator(config.evaluator_spec)
    question = measure(_v3(ems, nfe=5), rung=Rung.USER, n_images=200, noise_seed=1)
    found = evaluator.evaluate(question)
    assert found.value is not None
    assert np.isfinite(found.value)
    assert found.trial.nfe == 5
    assert evaluator.describe().ems == ems.nodes
    other = measure(_v3(_ems(0.1)), rung=Rung.USER, n_images=200, noise_seed=1)
    with pytest.raises(EvaluationFailed, match=f"those of the study are {ems.digest}"):
        evaluator.evaluate(other)
    without = Evaluator(study_config(tmp_path).evaluator_spec)
    with pytest.raises(EvaluationFailed, match=r"names none; set `ems` in its table \[statistics"):
        without.evaluate(question)


def test_evaluate_takes_a_v3_schedule_and_refuses_others_statistics(
    tmp_path: Path,
    ems: EmsStatistics,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file, study = tmp_path / "v3.json", study_file(tmp_path)
    _v3(ems).save(file)
    options = ("--n-images", 100, "--json")
    sets = ("--set", _named(tmp_path))
    assert _cli(monkeypatch, "evaluate", file, study, *options, *sets) == 0
    assert json.loads(capfd.readouterr().out)["schedule_id"] == _v3(ems).id
    assert _cli(monkeypatch, "evaluate", file, study, *options) == 2
    assert "the study names none" in capfd.readouterr().err
    _ems(0.1).save(tmp_path / "ems.safetensors")
    assert _cli(monkeypatch, "evaluate", file, study, *options, *sets) == 2
    assert "the schedule was made with ems statistics" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["launch", "check"])
def test_a_bad_statistics_file_is_bad_input(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    study = study_file(tmp_path)
    study.write_text(study.read_text() + '[statistics]\nems = "absent.safetensors"\n')
    assert _cli(monkeypatch, command, study) == 2
    assert "statistics.ems: absent.safetensors: no EMS statistics" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.toml"]


def test_statistics_of_other_images_are_refused(tmp_path: Path) -> None:
    _ems(shape=(1, 2, 2)).save(tmp_path / "ems.safetensors")
    config = study_config(tmp_path, _named(tmp_path))
    with pytest.raises(InvalidConfig, match=r"images of shape \(1, 2, 2\), the model makes"):
        Evaluator(config.evaluator_spec)


def test_a_study_starts_from_seeds_and_keeps_its_statistics(
    tmp_path: Path, ems: EmsStatistics
) -> None:
    _v3(ems).save(tmp_path / "mine.json")
    published.baselines(edm(), 3)["DDIM, karras, denoise"].save(tmp_path / "known.json")
    seeds = [str(tmp_path / "known.json"), str(tmp_path / "mine.json")]
    changes = [_named(tmp_path), f"search.seeds={json.dumps(seeds)}"]
    config = study_config(tmp_path, *changes)
    launch(config, _ignore)
    found = content(config)
    origins = [origin for _, _, origin, _ in found["proposals"]]
    n_published = sum(origin.startswith("baseline") for origin in origins)
    # a seed that is a published solver counts once, under that name
    assert origins[n_published] == "seed: mine.json"
    assert len(origins) == n_published + 1 + 6
    assert found["proposals"][n_published][1] == _v3(ems).id
    states = {row[1]: row[4] for row in found["evaluations"] if row[0] == "search"}
    assert states[_v3(ems).id] == "complete"
    assert found["state"] == "done"

    (tmp_path / "moved.safetensors").write_bytes((tmp_path / "ems.safetensors").read_bytes())
    moved = [f"statistics.ems={tmp_path / 'moved.safetensors'}", changes[1]]
    launch(study_config(tmp_path, *moved), _ignore)  # the same statistics elsewhere
    assert content(config) == found
    with pytest.raises(StudyConflict, match=r"search.seeds"):
        launch(study_config(tmp_path, changes[0]), _ignore)
    _ems(0.1).save(tmp_path / "ems.safetensors")
    with pytest.raises(InvalidConfig, match=r"mine.json.*those of the study are"):
        launch(study_config(tmp_path, *changes), _ignore)


def test_a_study_without_statistics_cannot_be_given_some(
    tmp_path: Path, ems: EmsStatistics
) -> None:
    searched_study(tmp_path)
    with pytest.raises(StudyConflict, match=f"statistics.ems = None, asked for '{ems.digest}'"):
        launch(study_config(tmp_path, _named(tmp_path)), _ignore)


def test_a_v3_winner_is_exported_with_its_table(
    tmp_path: Path,
    ems: EmsStatistics,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _v3(ems).save(tmp_path / "mine.json")
    changes = [_named(tmp_path), f'search.seeds=["{tmp_path / "mine.json"}"]']
    changes += ["search.evaluations=0", "search.baselines=false"]
    config = study_config(tmp_path, *changes)
    launch(config, _ignore)
    output = tmp_path / "best.json"
    words = ("export", "t", "-o", output, "--storage", config.storage.url, "--json")
    assert _cli(monkeypatch, *words) == 0
    loaded = Schedule.load(output)
    assert loaded.id == _v3(ems).id
    check_table(loaded, json.loads(output.read_text())["plan"], ems)
    with open_study(config.storage.url, "t") as store:
        assert store.config.search.seeds == (str(tmp_path / "mine.json"),)
    (tmp_path / "ems.safetensors").unlink()
    assert _cli(monkeypatch, *words) == 2
    assert "statistics.ems: " in capfd.readouterr().err


def test_a_study_searches_the_full_space_with_its_statistics(
    tmp_path: Path, ems: EmsStatistics
) -> None:
    gaussian = gaussian_statistics([images()], 4)
    gaussian.save(tmp_path / "gaussian.safetensors")
    changes = [_named(tmp_path), f"statistics.gaussian={tmp_path / 'gaussian.safetensors'}"]
    changes += ["search.algorithm=random", "search.baselines=false", "search.evaluations=30"]
    config = study_config(tmp_path, *changes, "space.preset=full")
    launch(config, _ignore)
    found = content(config)
    assert {row[4] for row in found["evaluations"]} == {"complete"}
    with open_study(config.storage.url, "t") as store:
        schedules = [store.schedule(p[1]) for p in found["proposals"]]
    named = {s.statistics.digest for s in schedules if s.statistics is not None}
    assert named == {ems.digest}
    jumps = {s.start.jump for s in schedules if s.start.jump is not None}
    assert jumps == {gaussian.jump(80.0, 8)}
    gaussian_statistics([images() * 0.9], 4).save(tmp_path / "gaussian.safetensors")
    with pytest.raises(StudyConflict, match=r"statistics\.gaussian = "):
        launch(config, _ignore)


def test_a_bad_gaussian_file_is_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "gaussian.safetensors"
    config = study_config(tmp_path, f"statistics.gaussian={file}")
    with pytest.raises(InvalidConfig, match=r"statistics.gaussian: .*no Gaussian statistics"):
        launch(config, _ignore)
    gaussian_statistics([images()[:, :, :2, :2]], 4).save(file)
    with pytest.raises(InvalidConfig, match=r"images of shape \(1, 2, 2\), the model makes"):
        launch(config, _ignore)
    assert not (tmp_path / "study.db").exists()


def _unusable_seeds(ems: EmsStatistics) -> dict[str, tuple[Schedule, str]]:
    ddim = published.ddim(edm(), nfe=3)
    patch = ModelPatch(skip_scale=(0.9,))
    return {
        "process": (published.ddim(vp_linear(), nfe=3), "process: this is a schedule for"),
        "nfe": (published.ddim(edm(), nfe=4), "makes 4 network calls, the study searches 3"),
        "patch": (ddim.model_copy(update={"model_patch": patch}), "a search changes no network"),
        "statistics": (_v3(ems), "the study names none"),
    }


@pytest.mark.parametrize("what", ["process", "nfe", "patch", "statistics"])
def test_seeds_that_the_study_cannot_measure_are_refused(
    what: str, tmp_path: Path, ems: EmsStatistics
) -> None:
    schedule, message = _unusable_seeds(ems)[what]
    schedule.save(tmp_path / "mine.json")
    config = study_config(tmp_path, f'search.seeds=["{tmp_path / "mine.json"}"]')
    with pytest.raises(InvalidConfig, match=rf"search.seeds\[0\].*mine.json.*{message}"):
        launch(config, _ignore)
    assert not (tmp_path / "study.db").exists()


def test_a_seed_file_that_is_no_schedule_is_refused(tmp_path: Path) -> None:
    for name, text in {"absent.json": None, "broken.json": "{"}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        config = study_config(tmp_path, f'search.seeds=["{tmp_path / name}"]')
        with pytest.raises(InvalidConfig, match=rf"search.seeds\[0\]: .*{name}"):
            launch(config, _ignore)


def test_seeds_of_the_same_levels_join_the_population(tmp_path: Path) -> None:
    wider: Any = edm(sigma_min=0.001, sigma_max=80.0)
    seed = published.ddim(wider, nfe=3, spacing="karras")
    seed.save(tmp_path / "mine.json")
    (tmp_path / "other").mkdir()
    published.dpmpp_2m(wider, nfe=3, spacing="karras").save(tmp_path / "other" / "mine.json")
    files = [str(tmp_path / "mine.json"), str(tmp_path / "other" / "mine.json")]
    changes = [f"search.seeds={json.dumps(files)}", "search.baselines=false"]
    config = study_config(tmp_path, *changes, "search.evaluations=4")
    launch(config, _ignore)
    proposals = content(config)["proposals"]
    assert [p[2] for p in proposals[:2]] == ["seed: mine.json", f"seed: {files[1]}"]
    with open_study(config.storage.url, "t") as store:
        first = store.schedule(proposals[0][1])
    assert first.process == edm()
    assert first.times == seed.times
