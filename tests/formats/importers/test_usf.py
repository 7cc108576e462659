"""Decision files of USF: safe to read, and exactly what they say."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers import PROCESSES, Request, import_schedule
from s3search.formats.importers.usf import schedule_of
from s3search.rules import EmsStatistics, RelaxationKind, Taylor
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan
from tests.formats.importers.files import decisions, usf_file
from tests.support.golden import ems as golden_ems
from tests.support.golden.cases import (
    Waits,
    case_files,
    golden_folder,
    mixture,
    problem_of,
    tensor,
)

_FAMILIES = {"adm": "adm", "edm": "edm", "lsun": "lsun", "sd": "sd", "sde": "score_sde"}
_PUBLISHED = sorted(golden_folder().glob("usf_published/*.pth"))
_CUSTOM = [path for name, path in case_files().items() if name.startswith("usf_custom")]


def _imported(path: Path, process: str = "score_sde", **options: Any) -> Schedule:
    return import_schedule("usf", Request(source=str(path), process=PROCESSES[process], **options))


def test_every_decision_becomes_a_field(tmp_path: Path) -> None:
    schedule = _imported(usf_file(tmp_path))
    times = torch.tensor([1.0, 0.6, 0.25, 0.001]).tolist()  # float32, as in the file
    assert list(schedule.times) == times
    second = schedule.steps[1].predictor
    assert isinstance(second, Taylor)
    assert second.derivatives[0].relaxation is not None
    assert second.derivatives[0].relaxation.kind is RelaxationKind.LINEAR
    assert second.derivatives[0].relaxation.coefficient == -0.25
    assert schedule.steps[0].corrector is not None
    assert schedule.steps[0].corrector.kind is CorrectorKind.PSEUDO
    assert schedule.model_patch is None  # all factors are 1
    assert schedule.nfe == 3
    assert Schedule.from_dict(schedule.to_dict()).id == schedule.id


def test_only_the_first_derivative_is_relaxed(tmp_path: Path) -> None:
    relaxed = {
        "estimate": "Difference_2",
        "active_points": [-3, -2],
        "relaxation": "dpmsolver-2",
    }
    types = decisions()["derivative_types"]
    schedule = _imported(usf_file(tmp_path, derivative_types=[*types[:2], [relaxed, relaxed]]))
    rule = schedule.steps[2].predictor
    assert isinstance(rule, Taylor)
    assert rule.derivatives[0].relaxation is not None
    assert rule.derivatives[1].relaxation is None


def test_times_of_a_discrete_model_are_indices(tmp_path: Path) -> None:
    schedule = _imported(usf_file(tmp_path), "adm")
    assert schedule.times[0] == 999.0
    assert abs(schedule.times[-1]) < 1e-4


def test_score_saved_beside_the_decisions_is_kept(tmp_path: Path) -> None:
    schedule = _imported(usf_file(tmp_path, score=3.5))
    assert schedule.provenance["imported"]["score"] == 3.5


def test_implicit_correctors_mean_what_they_say_unless_compat(tmp_path: Path) -> None:
    types = decisions()["corrector_types"]
    path = usf_file(tmp_path, corrector_types=[{**types[0], "type": "implicit"}, *types[1:]])
    assert _imported(path).nfe == 4
    assert _imported(path, compat=True).nfe == 3


def test_zero_x0_is_clean_unless_compat(tmp_path: Path) -> None:
    path = usf_file(tmp_path, afs="zero_x0")
    assert _imported(path).start.kind is StartKind.ZERO_X0
    assert _imported(path, compat=True).start.kind is StartKind.UNIT_NOISE
    assert _imported(path).nfe == 2


def test_zero_x0_of_the_edm_code_is_refused_where_it_is_wrong(tmp_path: Path) -> None:
    edm_times = torch.tensor([80.0, 5.0, 0.5, 0.002])
    path = usf_file(tmp_path, afs="zero_x0", timesteps=edm_times)
    assert _imported(path, "edm").start.kind is StartKind.ZERO_X0
    with pytest.raises(InvalidSchedule, match="import without --compat"):
        _imported(path, "edm", compat=True)
    noise = ["noise_prediction"] * 3  # the one prediction the EDM code has right
    path = usf_file(tmp_path, afs="zero_x0", timesteps=edm_times, prediction_types=noise)
    assert _imported(path, "edm", compat=True).start.kind is StartKind.ZERO_X0


def test_average_x0_takes_the_mean_image(tmp_path: Path) -> None:
    path = usf_file(tmp_path, afs="average_x0")
    with pytest.raises(InvalidConfig, match="--mean-image"):
        _imported(path)
    image = tmp_path / "mean.npz"
    np.savez(image, mean=np.full((1, 3, 2, 2), 0.25))
    start = _imported(path, mean_image=image).start
    assert start.kind is StartKind.AVERAGE_X0
    assert start.image == (((0.25, 0.25), (0.25, 0.25)),) * 3


def test_skip_coefficients_are_a_model_patch(tmp_path: Path) -> None:
    schedule = _imported(usf_file(tmp_path, skip_coefficients=torch.tensor([1.0, 0.5])))
    assert schedule.model_patch is not None
    assert schedule.model_patch.skip_scale == (1.0, 0.5)


class _Touch:
    """Pickles to a call that would make a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("place", ["alone", "among decisions", "as the score"])
def test_file_that_names_a_function_is_refused_unexecuted(tmp_path: Path, place: str) -> None:
    victim, path = tmp_path / "executed", tmp_path / "evil.pth"
    content = {
        "alone": _Touch(victim),
        "among decisions": decisions(afs=_Touch(victim)),
        "as the score": [decisions(), _Touch(victim)],
    }
    torch.save(content[place], path)
    with pytest.raises(InvalidConfig, match="refused"):
        _imported(path)
    assert not victim.exists()


_WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing list": ({"orders": None}, "orders"),
    "short list": ({"orders": [1, 2]}, "orders: 4 timesteps need 3 entries"),
    "order too high": ({"orders": [2, 2, 3]}, "order 2"),
    "unknown prediction": ({"prediction_types": ["noise"] * 3}, "prediction_types"),
    "rising times": ({"timesteps": torch.tensor([0.1, 0.2, 0.3, 0.4])}, "times must fall"),
    "unknown start": ({"afs": "magic"}, "afs"),
    "unknown key": ({"colour": 1}, "colour"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_wrong_decisions_are_refused_with_their_field(tmp_path: Path, name: str) -> None:
    changed, message = _WRONG[name]
    with pytest.raises((InvalidConfig, InvalidSchedule), match=message):
        _imported(usf_file(tmp_path, **changed))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken", b"\x80\x04."])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig):
        _imported(path)


def test_cut_and_flipped_files_are_refused_or_read(tmp_path: Path) -> None:
    whole = usf_file(tmp_path, score=2.0).read_bytes()
    for place in range(0, len(whole), 97):
        for damaged in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            path = tmp_path / "damaged.pth"
            path.write_bytes(damaged)
            try:
                _imported(path)
            except (InvalidConfig, InvalidSchedule):
                continue


@pytest.mark.skipif(not _CUSTOM, reason="the golden folder holds no usf cases")
@pytest.mark.parametrize("path", _CUSTOM, ids=lambda path: path.stem)
def test_golden_decisions_import_as_the_schedules_that_reproduce_them(
    path: Path, tmp_path: Path
) -> None:
    case = json.loads(path.read_text())
    if case.get("upstream_defect"):
        pytest.skip("published code is defective here")
    try:
        problem = problem_of(case)
    except Waits as missing:
        pytest.skip(str(missing))
    schedule = schedule_of(
        case["decisions"],
        problem.schedule.process,
        compat=True,
        mean_image=_mean_image(tmp_path),
        ems=problem.statistics,
    )
    assert schedule.statistics == problem.schedule.statistics
    assert schedule.times == problem.schedule.times
    assert schedule.steps == problem.schedule.steps
    assert schedule.start == problem.schedule.start


@pytest.mark.skipif(
    not _PUBLISHED, reason="needs the authors' files: $S3SEARCH_GOLDEN/usf_published"
)
@pytest.mark.parametrize("path", _PUBLISHED, ids=lambda path: path.stem)
def test_published_schedule_imports_and_reproduces(path: Path, tmp_path: Path) -> None:
    case = json.loads((golden_folder() / "usf" / f"usf_{path.stem}.json").read_text())
    family = _FAMILIES[path.stem.split("_")[0]]
    statistics = golden_ems.statistics_of(case, golden_folder())
    ems = None
    if statistics is not None:
        ems = tmp_path / "ems.safetensors"
        statistics.save(ems)
    schedule = _imported(path, family, compat=True, mean_image=_mean_image(tmp_path), ems=ems)
    assert Schedule.from_dict(schedule.to_dict()).id == schedule.id
    plan = compile_plan(schedule, statistics)
    again = compile_plan(
        Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))), statistics
    )
    assert again.to_dict() == plan.to_dict()  # bit for bit
    end = run_plan(mixture(schedule.process), plan, tensor(case["x_start"]))
    expected = tensor(case["x_end"])
    deviation = float((end - expected).abs().max() / expected.abs().max())
    assert deviation <= case["tolerance"]["relative"]
    assert schedule.nfe == case["nfe"]


def _mean_image(folder: Path) -> Path:
    """The mean of the golden model, as a file."""
    model = json.loads((golden_folder() / "mixture.json").read_text())
    np.save(folder / "mean.npy", np.array(model["mean"]).reshape(model["shape"]))
    return folder / "mean.npy"


def test_v3_steps_ask_for_their_statistics(tmp_path: Path) -> None:
    path = usf_file(tmp_path, prediction_types=["dpmsolver_v3_prediction"] * 3)
    with pytest.raises(InvalidConfig, match="--ems"):
        _imported(path)
    ems = tmp_path / "ems.safetensors"
    EmsStatistics.degenerate(-5.0, 5.0, 20).save(ems)
    schedule = _imported(path, ems=ems)
    assert schedule.statistics is not None
    assert schedule.statistics.digest == EmsStatistics.load(ems).digest
