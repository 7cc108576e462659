"""Winners run where they are needed: in the pipeline that was searched, or as a pasted list."""

import inspect
import logging
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import s3search
from s3search.errors import InvalidConfig, StudyConflict
from s3search.models.diffusers.loading import PIPELINES
from s3search.models.digits import load as digits
from s3search.processes import flow
from s3search.run.launching import launch
from s3search.schedules.published.listed import listed_solver_of
from s3search.schedules.schedule import Schedule
from s3search.search.space.targets import PIPELINE_CLASSES
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.study.database.store import open_study
from tests.support import pipelines
from tests.support.helpers import gaussian
from tests.support.helpers import noise as unit_noise
from tests.support.listed import in_diffusers, in_k_diffusion

_S3 = {"algorithm": "s3", "evaluations": 40, "n_images": 12, "baselines": True}
_QUIET = pytest.mark.filterwarnings(
    "ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning"
)


def _winner_of_pipeline(folder: Path, tmp_path: Path, **tables: Any) -> tuple[Any, Path]:
    config = pipelines.study(tmp_path, {"path": str(folder)}, search=_S3, **tables)
    output = tmp_path / "schedule.json"
    return pipelines.searched(config, output), output


@_QUIET
@pytest.mark.parametrize(
    "build", [pipelines.ddpm, pipelines.stock_ddim, pipelines.stock_pndm, pipelines.ldm]
)
def test_the_default_winner_runs_in_its_own_pipeline(
    build: Callable[[Path], Path], tmp_path: Path
) -> None:
    pytest.importorskip("diffusers")
    folder = build(tmp_path / "pipe")
    size = 16 if build is pipelines.ldm else 8
    images = {"images": "tests.support.pipelines:references", "size": size}
    evaluator, output = _winner_of_pipeline(folder, tmp_path, reference=images)
    schedule = Schedule.load(output)
    assert schedule.provenance["target"] in PIPELINE_CLASSES
    assert schedule.provenance["tied_to"] == []
    ours, theirs = pipelines.both_ways(evaluator, folder, output)
    assert pipelines.is_close(theirs, ours)


def test_every_pipeline_that_loads_is_known_as_a_target() -> None:
    diffusers = pytest.importorskip("diffusers")
    assert PIPELINE_CLASSES.keys() == PIPELINES.keys()
    for name, runtime in PIPELINE_CLASSES.items():
        kind = getattr(diffusers, name)
        source = inspect.getsource(kind)
        assert ("step_correct" in source) == (runtime is None)
        if runtime is None:
            continue
        assert ("init_noise_sigma" in source) == runtime.scales_noise, name
        assert ("scale_model_input" in source) == runtime.maps_noise == runtime.jumps, name
        takes = "callback_on_step_end" in inspect.signature(kind.__call__).parameters
        reads = hasattr(kind, "do_classifier_free_guidance") and "self.guidance_scale *" in source
        assert (takes and reads) == runtime.guidance, name


@_QUIET
def test_the_target_is_settled_stored_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("diffusers")
    folder = pipelines.ddpm(tmp_path / "pipe")
    config = pipelines.study(tmp_path, {"path": str(folder)})
    with caplog.at_level(logging.WARNING, "s3search"):
        launch(config, lambda _: None)
    own = [record.getMessage() for record in caplog.records if record.name == "s3search"]
    assert own == ["space: what DDPMPipeline cannot run is left out (starts)"]
    with open_study(config.storage.url, "t") as store:
        assert store.space["target"] == "DDPMPipeline"
        assert store.space["data_bound"] is False
    launch(config, lambda _: None)  # again: the same
    other = pipelines.study(tmp_path, {"path": str(folder)}, space={"target": "sigmas"})
    with pytest.raises(StudyConflict, match="space"):
        launch(other, lambda _: None)


@_QUIET
def test_a_default_target_gives_way_to_what_the_file_asks_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("diffusers")
    folder = pipelines.ddpm(tmp_path / "pipe")
    asked = {"starts": ["zero_x0"]}
    config = pipelines.study(tmp_path, {"path": str(folder)}, space=asked)
    with caplog.at_level(logging.WARNING, "s3search"):
        launch(config, lambda _: None)
    assert "space.starts" in caplog.text and "may not run in the DDPMPipeline" in caplog.text
    with open_study(config.storage.url, "t") as store:
        assert store.space["target"] == "any"
    named = {**asked, "target": "pipeline"}
    config = pipelines.study(tmp_path, {"path": str(folder)}, space=named, study={"name": "u"})
    with pytest.raises(InvalidConfig, match=r"space\.starts: \[zero_x0\] was asked"):
        launch(config, lambda _: None)


# ---- lists


def _found(**space: Any) -> Any:
    denoiser = gaussian(flow()) if space.pop("flow", False) else "digits"
    data = torch.randn((64, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    given = {"reference": "digits", "features": "digits"}
    if denoiser != "digits":
        given = {"reference": data.clamp(-1, 1), "features": _flat}
    return s3search.search(
        denoiser,
        **given,
        nfe=4,
        evaluations=60,
        n_images=200,
        space={"preset": "usf", "target": "sigmas", **space},
        validation={"n_images": 60, "finalists": 2},
    )


def _flat(images: torch.Tensor) -> torch.Tensor:
    return images.float().flatten(1)


def _list_of(found: Any, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file of the winner's list, and the names in it."""
    file = folder / "list.py"
    found.export("sigmas", file)
    return file, runpy.run_path(str(file))


@_QUIET
@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m"])
def test_the_winner_on_digits_is_a_list_for_the_named_solver(solver: str, tmp_path: Path) -> None:
    found = _found(solver=solver)
    schedule = found.schedule
    assert listed_solver_of(schedule, solver) is not None
    assert schedule.times[0] == 80.0 and schedule.times[-1] == 0.0
    assert schedule.tied_to == ()
    assert any(name.startswith("polish") for name in found.table["name"])  # of levels alone
    file, names = _list_of(found, tmp_path)
    denoiser = digits()
    noise = torch.randn((4, *denoiser.sample_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = sample(denoiser, compile_plan(schedule), noise)
        theirs = in_k_diffusion(solver, names, denoiser, noise)
        assert pipelines.is_close(theirs, ours)
        if solver == "euler":
            assert pipelines.is_close(in_diffusers(file, names, denoiser, noise), ours)


@_QUIET
def test_the_winner_of_a_flow_is_a_list_for_its_solver(tmp_path: Path) -> None:
    schedule = (found := _found(flow=True)).schedule
    assert listed_solver_of(schedule, "euler") is not None
    file, names = _list_of(found, tmp_path)
    denoiser, noise = gaussian(flow()), unit_noise()
    ours = sample(denoiser, compile_plan(schedule), noise)
    assert pipelines.is_close(in_diffusers(file, names, denoiser, noise), ours)
    assert pipelines.is_close(in_k_diffusion("euler", names, denoiser, noise), ours)


def test_wrong_solvers_and_algorithms_are_named() -> None:
    for space, said in (
        ({"solver": "ipndm", "flow": True}, r"no program runs 'ipndm' on a list .* 'flow' model"),
        ({"solver": "unipc"}, r"there is no solver on a list 'unipc'"),
        ({"solver": "euler", "target": "any"}, r"'euler' is for target = 'sigmas', found 'any'"),
        ({"solver": "dpm"}, r"there is no solver on a list 'dpm'"),
        ({"target": "pipeline"}, r"the model is no pipeline of diffusers"),
        ({"target": "sigms"}, r"'sigms' is not known; did you mean 'sigmas'"),
        ({"starts": ["average_x0"]}, r"space\.starts: \[average_x0\] was asked"),
    ):
        with pytest.raises(InvalidConfig, match=said):
            _found(**space)
    with pytest.raises(InvalidConfig, match="'usf' searches steps of its own"):
        s3search.search(
            "digits",
            reference="digits",
            features="digits",
            algorithm="usf",
            evaluations=4,
            n_images=20,
            space={"target": "sigmas"},
        )


def test_a_mean_image_is_for_who_asks_and_said() -> None:
    found = s3search.search(
        "digits",
        reference="digits",
        features="digits",
        nfe=3,
        evaluations=3,
        n_images=20,
        algorithm="random",
        space={"starts": ["average_x0"]},
        search={"baselines": False},
        validation={"n_images": 40, "finalists": 1},
    )
    assert found.schedule.tied_to == ("the mean image of the data, 1 x 8 x 8",)
    assert found.schedule.provenance["tied_to"] == list(found.schedule.tied_to)
