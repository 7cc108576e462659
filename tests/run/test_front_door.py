"""Searching from Python: objects of the program in, schedules and a table out."""

import dataclasses
import inspect
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import s3search
from s3search.cli import run
from s3search.errors import InvalidConfig, InvalidSchedule, S3SearchError, StudyConflict
from s3search.processes import edm, flow
from s3search.run.found import SearchResult
from s3search.run.keywords import SearchKeywords
from s3search.run.searching import EVALUATE
from s3search.schedules import published
from s3search.study.results.progress import Progress
from tests.suites.pool_suite import start_ray
from tests.support import pipelines
from tests.support.live import SHAPE, Net, network, pixels, real_images, small_search, squares
from tests.support.studies import study_file

IMAGES = real_images()
ALONE = "baselines = false"  # are validated: less to draw for the dashboard


@pytest.fixture(scope="module")
def found() -> SearchResult:
    """A search with two numbers of calls and a second extractor."""
    return small_search(Net(), nfe=[4, 5], validation_metric=squares)


# -- what is searched ----------------------------------------------------------------------


def test_ten_lines_search_a_live_module() -> None:
    model = Net()
    found = s3search.search(
        model,
        reference=IMAGES,
        features=pixels,
        nfe=5,
        evaluations=6,
        n_images=40,
        algorithm="evolution",
        validation={"n_images": 80, "finalists": 2},
    )
    assert found.schedule.nfe == 5
    assert found.schedules == {5: found.schedule}
    assert model._calls > 0
    assert model._pickled == 0


@pytest.mark.cluster
def test_two_ray_workers_find_what_this_process_finds() -> None:
    start_ray()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two workers on two cores has
    try:
        alone = small_search(Net())
    finally:
        torch.set_num_threads(n_threads)
    model = Net()
    together = small_search(model, workers="local", cluster={"workers": 2})
    assert together.schedule.id == alone.schedule.id
    pd.testing.assert_frame_equal(together.table, alone.table)
    assert (model._pickled, model._calls) == (1, 0)  # once for all workers and tasks


def test_a_callable_is_told_its_process_and_shape() -> None:
    found = small_search(network, process=edm(), sample_shape=SHAPE)
    assert found.schedule.process == edm()
    assert found.name.startswith("network-nfe5-")


def test_a_module_is_found_inside_a_function() -> None:
    net = Net()  # refuses calls in training mode, in which it is
    found = small_search(lambda x, t: 1.0 * net(x, t), process=edm(), sample_shape=SHAPE)
    assert found.schedule.nfe == 5
    assert net.training and net.variances.requires_grad


def test_the_model_is_left_as_it_was_found() -> None:
    class Extractor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(9)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.norm(images.flatten(1))
            return found

    model, extractor = Net(), Extractor()
    extractor.norm.eval()
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    small_search(model, features=extractor, algorithm="s3", evaluations=4)
    assert model.training and extractor.training and not extractor.norm.training
    assert model.variances.requires_grad and extractor.norm.weight.requires_grad
    assert model.variances.grad is None
    for key, value in extractor.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_failing_search_leaves_the_model_as_it_was_found() -> None:
    model = Net()
    with pytest.raises(InvalidConfig, match=r"metric\.features"):
        small_search(model, features=lambda images: images)
    assert model.training and model.variances.requires_grad


def test_names_of_loaders_do_as_well() -> None:
    here = "tests.support.plugins"
    found = small_search(
        f"{here}:gaussian",
        reference=f"{here}:images",
        features=f"{here}:pixels",
        validation_metric={"features": f"{here}:squares", "power": 3},
        seconds=0.0,
    )
    assert found.name == f"{here}:gaussian-nfe5"
    assert set(found.table["second_extractor"]) == {"squares-3"}


def test_a_table_says_what_has_no_keyword(tmp_path: Path) -> None:
    found = small_search(
        {"loader": "tests.support.plugins:gaussian"},
        reference=IMAGES.numpy(),
        space={"preset": "usf", "orders": [1]},
        **{
            **_kept(tmp_path),
            "storage": {"url": f"sqlite:///{tmp_path}/s.db", "artifacts": f"{tmp_path}/shown"},
        },
    )
    assert found.storage == f"sqlite:///{tmp_path}/s.db"
    assert (tmp_path / "shown").is_dir()


def test_a_study_file_runs_as_it_stands(tmp_path: Path) -> None:
    text = study_file(tmp_path).read_text()
    (tmp_path / "study.toml").write_text(text.replace("[validation]", f"[validation]\n{ALONE}"))
    found = s3search.search(tmp_path / "study.toml", progress=False)
    assert (found.name, list(found.schedules)) == ("t", [3])
    with pytest.raises(InvalidConfig, match="evaluations: was given beside a whole study"):
        s3search.search(str(tmp_path / "study.toml"), evaluations=7)


def test_a_reference_may_be_a_folder_or_a_file(tmp_path: Path, found: SearchResult) -> None:
    for i, image in enumerate(IMAGES[:40]):
        levels = ((image[0].numpy() + 1) * 127.5).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / f"{i}.png")
    of_folder = s3search.evaluate(
        found.schedule, Net(), reference=tmp_path, features=pixels, n_images=20
    )
    assert of_folder.reference_n == 40
    flat = IMAGES.flatten(1).double().numpy()
    np.savez(tmp_path / "r.npz", mu=flat.mean(0), sigma=np.cov(flat, rowvar=False))
    arguments: dict[str, Any] = {"features": pixels, "n_images": 50}
    of_file = s3search.evaluate(
        found.schedule, Net(), reference=str(tmp_path / "r.npz"), **arguments
    )
    of_images = s3search.evaluate(found.schedule, Net(), reference=IMAGES, **arguments)
    assert of_file.value == pytest.approx(of_images.value, rel=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
def test_a_pipeline_in_memory_is_searched_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers")
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path / "cache"))
    folder = pipelines.stable_diffusion(tmp_path / "pipe")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    arguments: dict[str, Any] = {
        "reference": pipelines.references(size=16),
        "features": pipelines.pooled(),
        "nfe": 3,
        "n_images": 8,
        "evaluations": 2,
        "search": {"baselines": False},
        "validation": {"n_images": 8, "finalists": 1, "baselines": False},
        "space": {"starts": ["network"]},
    }
    prompted = {"prompts": ["a", "b c", "d", "e"], "held_out": 0, "height": 16, "width": 16}
    found = small_search(pipe, **arguments, **prompted, guidance_scale=2.0)
    assert found.name.startswith("StableDiffusionPipeline-nfe3-")
    assert found.schedule.process.type == "vp_discrete"
    assert next(pipe.unet.parameters()).requires_grad
    assert not (tmp_path / "cache").exists()  # embeddings stay in memory
    with pytest.raises(InvalidConfig, match="promts: unknown keyword; did you mean 'prompts'"):
        small_search(pipe, **arguments, promts=["a"])
    with pytest.raises(InvalidConfig, match=r"model: .*makes images of prompts"):
        small_search(pipe, **arguments)


# -- what comes back -----------------------------------------------------------------------


def test_the_winner_of_each_number_of_calls_is_there(found: SearchResult) -> None:
    assert {nfe: own.nfe for nfe, own in found.schedules.items()} == {4: 4, 5: 5}
    assert found.schedule is found.schedules[5]
    assert found.schedule.provenance["study"] == found.name
    assert found.status["state"] == "done"


def test_the_table_has_every_validated_schedule_with_its_interval(found: SearchResult) -> None:
    table = found.table
    winners = table[table["is_winner"]]
    assert list(winners["schedule_id"]) == [own.id for own in found.schedules.values()]
    assert set(table["is_baseline"]) == {True, False}
    assert ((table["low"] < table["distance"]) & (table["distance"] < table["high"])).all()
    assert list(winners["times_winner"]) == [1.0, 1.0]
    assert table["second_distance"].notna().all()
    assert set(table["n_images"]) == {80}


def test_it_is_drawn_saved_and_exported(found: SearchResult, tmp_path: Path) -> None:
    figure = found.plot(4)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    found.save(tmp_path / "schedule.json")
    assert s3search.Schedule.load(tmp_path / "schedule.json").id == found.schedule.id
    made = found.export("comfyui", tmp_path / "node.py", 4)
    assert made.files == (tmp_path / "node.py",)
    assert found.schedules[4].id[:8] in made.files[0].read_text()
    with pytest.raises(InvalidConfig, match="did you mean 'comfyui'"):
        found.export("comfy", tmp_path / "node.py")
    with pytest.raises(InvalidConfig, match="nfe=7: nothing was found there"):
        found.save(tmp_path / "x.json", 7)


def test_it_says_what_it_is(found: SearchResult) -> None:
    lines = repr(found).splitlines()
    assert lines[0] == f"SearchResult of '{found.name}'"
    assert re.match(r"  NFE 4: distance 0\.\d+ \(.* to .*\) of 80 held-out images", lines[1])
    assert "<table" in found._repr_html_()
    assert found.name in found._repr_html_()


def test_evaluate_measures_a_schedule_with_all_it_needs(
    found: SearchResult, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"reference": IMAGES, "features": pixels, "n_images": 80}
    again = s3search.evaluate(found.schedule, Net(), seed=1, **arguments)
    (row,) = found.table[found.table["schedule_id"] == found.schedule.id].to_dict("records")
    assert again.value == row["distance"]  # the noise of the validation
    assert again.interval == (row["low"], row["high"])
    assert (again.metric, again.extractor) == ("frechet", row["extractor"])
    assert (again.n_images, again.noise_seed) == (80, 1)
    assert again.reference_digest == row["reference_digest"]
    assert again.model_fingerprint == found.schedule.provenance["model_fingerprint"]
    found.save(tmp_path / "s.json")
    other = s3search.evaluate(tmp_path / "s.json", Net(), **arguments)
    assert other.noise_seed == 7
    assert other.value != again.value
    assert s3search.evaluate(tmp_path / "s.json", Net(2.0), **arguments).value > other.value


def test_evaluate_refuses_a_schedule_of_another_process(found: SearchResult) -> None:
    other = published.flow_euler(flow(), nfe=3)
    with pytest.raises(InvalidSchedule, match="schedule: process: this is a schedule for Flow"):
        s3search.evaluate(other, Net(), reference=IMAGES, features=pixels)
    arguments: dict[str, Any] = {"reference": IMAGES, "features": pixels}
    for wrong, words in (
        ({"n_images": 1}, "n_images: needs a whole number from 2 to 10,000,000, found 1"),
        ({"num_images": 9}, "num_images: unknown keyword; did you mean 'n_images'?"),
        ({"random_state": 9}, "random_state: unknown keyword; here it is seed"),
    ):
        with pytest.raises(InvalidConfig, match=re.escape(words)):
            s3search.evaluate(found.schedule, Net(), **arguments, **wrong)


def test_the_keywords_of_both_functions_are_known() -> None:
    parameters = inspect.signature(s3search.evaluate).parameters
    assert set(EVALUATE) == set(parameters) - {"more"}
    of_search = inspect.signature(s3search.search).parameters.values()
    fields = {own.name: own for own in dataclasses.fields(SearchKeywords)}
    assert [own.name for own in of_search] == list(fields)
    for own in list(of_search)[1:-1]:
        assert own.default == fields[own.name].default


# -- what is kept --------------------------------------------------------------------------


def _kept(folder: Path) -> dict[str, Any]:
    """Keywords of a study with a database and little to draw for the dashboard."""
    validation = {"n_images": 80, "finalists": 2, "baselines": False}
    return {"storage": f"sqlite:///{folder}/s.db", "name": "mine", "validation": validation}


def test_without_a_storage_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = small_search(Net())
    assert list(tmp_path.iterdir()) == []
    assert found.storage is None
    assert found.plot() is not None


def test_a_study_is_gone_on_with_by_its_storage_and_name(tmp_path: Path) -> None:
    kept = _kept(tmp_path)
    model = Net()
    first = small_search(model, **kept)
    n_calls, again = model._calls, Net()
    second = small_search(again, **kept)
    assert again._calls < n_calls / 10  # nothing is measured a second time
    pd.testing.assert_frame_equal(second.table, first.table)
    more = small_search(Net(), **kept, evaluations=12)
    assert more.status["evaluations"] > first.status["evaluations"]
    with pytest.raises(StudyConflict, match=r"'mine' exists with model\.fingerprint = "):
        small_search(Net(2.0), **kept)
    with pytest.raises(StudyConflict, match=r"'mine' exists with reference\.digest = "):
        small_search(Net(), **kept, reference=real_images(200))
    with pytest.raises(StudyConflict, match=r"'mine' exists with metric\.fingerprint = "):
        small_search(Net(), **kept, features=squares)


def test_an_interrupted_search_keeps_what_was_measured(tmp_path: Path) -> None:
    undisturbed = small_search(Net(), **{**_kept(tmp_path), "storage": None})
    kept = _kept(tmp_path)
    model = Net()
    model._interrupted_at = 40
    with pytest.raises(KeyboardInterrupt, match=r"saved in sqlite.*name='mine' to go on"):
        small_search(model, **kept)
    assert model.training
    found = small_search(model, **kept)
    pd.testing.assert_frame_equal(found.table, undisturbed.table)
    model._interrupted_at = model._calls + 40
    with pytest.raises(KeyboardInterrupt, match="nothing was kept, since there is no storage"):
        small_search(model)


def test_commands_read_a_study_of_live_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    small_search(Net(), **_kept(tmp_path))

    def said(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["s3search", *words, "--storage", url])
        capfd.readouterr()
        code = run()
        return (code, *capfd.readouterr())

    output = str(tmp_path / "out")
    for words in (
        ("status", "mine"),
        ("best", "mine"),
        ("compare", "mine"),
        ("export", "mine", "-o", output),
        ("report", "mine", "-o", output),
    ):
        code, out, err = said(*words)
        assert (code, err) == (0, ""), words
        assert out
    code, out, _ = said("report", "mine", "-o", output, "--samples", "2")
    assert code == 0
    assert "this study searched a live object (object Net, fingerprint" in out  # no samples
    code, _, err = said("compare", "mine", "--grid", output, "--samples")
    assert code == 2
    assert "model.loader: this study searched a live object (object Net, fingerprint" in err


# -- what is shown -------------------------------------------------------------------------


def test_it_is_silent_unless_somebody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    small_search(Net(), progress=False)
    small_search(Net(), progress=None)  # this is neither a terminal nor a notebook
    assert capfd.readouterr() == ("", "")
    small_search(Net(), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "final check on unseen noise: " in err


def test_progress_may_be_a_function() -> None:
    seen: list[Progress] = []
    small_search(Net(), progress=seen.append)
    assert {now.stage for now in seen} >= {"baselines", "search", "validation"}


def _says(program: str) -> str:
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def test_importing_costs_neither_ray_nor_optuna() -> None:
    program = (
        "import sys, s3search; s3search.evaluate; import s3search.search.space;"
        "print(sorted({'ray', 'optuna', 'pandas', 'sqlalchemy', 'matplotlib', 'rich', 'diffusers'}"
        " & set(sys.modules)), s3search.search.__name__, callable(s3search.search))"
    )
    assert _says(program) == "[] search True"


def test_importing_and_the_help_do_not_wait_for_torch() -> None:
    program = (
        "import sys; from s3search.cli import run; import s3search;"
        "sys.argv = ['s3search', '--help']; run();"
        "print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    )
    said = _says(program)
    assert said.startswith("Usage: s3search")
    assert said.endswith("set()")


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    program = (
        "import s3search; names = s3search.__all__; listed = set(names) <= set(dir(s3search));"
        "from s3search import *; print(listed, all(name in globals() for name in names),"
        "s3search.processes.edm().type, published.__name__, Schedule.__module__)"
    )
    home = "s3search.schedules"
    assert _says(program) == f"True True edm {home}.published {home}.schedule"
    with pytest.raises(AttributeError, match="module 's3search' has no attribute 'sampel'"):
        s3search.sampel  # type: ignore[attr-defined]  # noqa: B018


# -- what is refused -----------------------------------------------------------------------


class Silent:
    """A denoiser without a process."""

    sample_shape = SHAPE

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x


def _wrong(**changes: Any) -> dict[str, Any]:
    return {"model": Net(), **changes}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (_wrong(model=Silent()), r"model: this Silent has no 'process'; give process="),
        (_wrong(model=network), r"model: this network has no 'process'"),
        (_wrong(model=Net), r"model: needs a denoiser .*, found the class Net"),
        (_wrong(model=5), r"model: needs a denoiser .*, found 5"),
        (_wrong(model="digit"), r"no built-in is called 'digit' \(did you mean 'digits'\?\)"),
        (_wrong(process="edm"), r"process: needs one of s3search\.processes: .*found 'edm'"),
        (
            _wrong(sample_shape=(3, 0)),
            r"sample_shape: needs the shape.*found \(3, 0\)",
        ),
        (_wrong(model="digits", process=edm()), r"process: this model brings its own"),
        (_wrong(sample_shape=(3, 5, 5)), r"called with x \(2, 3, 5, 5\) .* failed with Runtime"),
        (_wrong(reference=None), r"reference: needs real images as a float tensor"),
        (_wrong(reference=IMAGES * 100), r"values must lie in \[-1, 1\]"),
        (_wrong(reference=IMAGES / 2 + 0.5), r"as of images in \[0, 1\].*2 \* images - 1"),
        (_wrong(reference=IMAGES[0]), r"needs real images as floats .* found torch.float32"),
        (_wrong(reference=IMAGES.byte()), r"found torch.uint8 .* / 127.5 - 1"),
        (_wrong(reference=IMAGES[:1]), r"reference: needs at least 2 real images, found 1"),
        (_wrong(reference="digit"), r"'digit' is no folder, no .npz .*did you mean 'digits'"),
        (_wrong(features=None), r"features: needs a callable .*, found None"),
        (_wrong(features="incepton"), r"did you mean 'inception'"),
        (_wrong(validation_metric=3), r"validation_metric: needs a callable .*, found 3"),
        (_wrong(image=3), r"image: unknown keyword; did you mean 'n_images'\?"),
        (_wrong(evalutions=3), r"evalutions: unknown keyword; did you mean 'evaluations'\?"),
        (_wrong(n_trials=3), r"n_trials: unknown keyword; here it is evaluations"),
        (_wrong(finalists=3), r"it is a key of a table: validation=\{'finalists': \.\.\.\}"),
        (_wrong(model="digits", label="none"), r"label: unknown keyword; did you mean 'labels'"),
        (_wrong(search={"bach": 3}), r"search.bach: unknown key; did you mean 'batch'"),
        (_wrong(search={"n_images": 3}), r"search.n_images: is the keyword n_images"),
        (_wrong(cluster=2), r"cluster: needs a mapping, the table \[cluster\]"),
        (_wrong(workers=2), r"how many is cluster=\{'workers': \.\.\.\}"),
        (_wrong(workers="nowhere"), r"'nowhere'.* is no place to run workers"),
        (_wrong(nfe=0), r"space.nfe: .*from 1 to 100"),
        (_wrong(nfe=2.5), r"space.nfe"),
        (_wrong(n_images=1), r"search.n_images"),
        (_wrong(space="ufs"), r"no preset 'ufs'.*did you mean 'usf'"),
        (_wrong(algorithm="s4"), r"unknown algorithm 's4'; did you mean 's3'"),
        (_wrong(storage="here.db", name="t"), r"is no database URL"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_do(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words) as caught:
        small_search(**asked)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, S3SearchError)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: (x,), "it returned a tuple"),
        (lambda x: x[:1], r"it returned the shape \(1, 1, 3, 3\)"),
        (lambda x: x * float("nan"), "it returned numbers that are not finite"),
        (lambda x: x.nothing, "it failed with AttributeError"),
    ],
)
def test_a_model_that_answers_something_else_is_refused(answer: Any, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        small_search(lambda x, t: answer(x), process=edm(), sample_shape=SHAPE)
