"""Study presets: handed out by the command, complete, and each searched with a tiny model of its
own class and random weights, overriding paths, sizes and budgets alone.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from s3search.cli import run
from s3search.models.edm.denoiser import EdmDenoiser
from s3search.models.edm.unets import SongConfig
from s3search.models.guided_diffusion import AdmDenoiser
from s3search.models.guided_diffusion.settings import AdmConfig, ClassifierConfig
from s3search.run.launching import space_of
from s3search.search.space import preset_folder
from s3search.study.file.config import config_from_text
from s3search.study.file.presets import study_preset, study_presets, unfilled
from s3search.study.file.protocols import PROTOCOLS
from tests.models.edm.pickled import with_weights
from tests.support import pipelines
from tests.support.studies import FEWER

NAMES = ("cifar10-edm", "dit", "flux", "imagenet64-adm", "ldm-bedroom", "sd15", "sd3", "sdxl")
N_VALIDATED = 8
PROMPTS = ["a b c", "d", "e f g h a", "b", "g g", "h a f", "c d", "f", "e b", "a", "b b", "c h"]
SCHEDULES_VALIDATED = {3: 16, 2: 15}  # by finalists: with the best of each published solver


def features(**options: Any) -> Callable[[Tensor], Tensor]:
    """Stands for Inception, whose weights are not here; takes the keys of its table."""
    assert set(options) <= {"download", "weights", "batch"}
    return pipelines.pooled()


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Said:
    """Exit code, output and error of a command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("S3SEARCH_STORAGE", raising=False)

    def typed(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["s3search", *map(str, words)])
        capfd.readouterr()
        code = run()
        return code, *capfd.readouterr()

    return typed


# --- the command ---


def test_presets_are_listed_in_a_line_each(said: Said) -> None:
    code, out, _ = said("preset")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(NAMES)
    found = json.loads(said("preset", "--json")[1])["presets"]
    assert [p["name"] for p in found] == list(NAMES)
    assert all(p["summary"] in out for p in found)


def test_a_preset_is_written_whole_and_says_what_to_fill_in(said: Said, tmp_path: Path) -> None:
    code, out, _ = said("preset", "sd15", "-o", "study.toml")
    assert code == 0
    assert (tmp_path / "study.toml").read_text("utf-8") == study_preset("sd15").text
    assert "fill in model.prompts: 20,000 captions" in out
    assert "fill in reference.path: " in out
    written = json.loads(said("preset", "sd15", "-o", "other.toml", "--json")[1])
    assert set(written["fill_in"]) == {"model.prompts", "reference.path"}


def test_a_preset_is_printed_as_it_is_in_the_file(said: Said) -> None:
    assert said("preset", "flux")[1] == study_preset("flux").text
    assert json.loads(said("preset", "flux", "--json")[1])["text"] == study_preset("flux").text


def test_an_existing_file_is_not_overwritten(said: Said, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("mine")
    code, _, error = said("preset", "sd15", "-o", "study.toml")
    assert (code, (tmp_path / "study.toml").read_text()) == (2, "mine")
    assert "study.toml exists" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sdx",), "did you mean 'sdxl'?"),
        (("sd15", "-o", "no/study.toml"), "no folder no"),
        (("-o", "study.toml"), "which preset?"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    said: Said, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    code, out, error = said("preset", *words)
    assert (code, out) == (2, "")
    assert message in error
    assert not list(tmp_path.iterdir())


# --- the files ---


def test_there_is_one_for_each_model() -> None:
    assert tuple(preset.name for preset in study_presets()) == NAMES


def test_the_readme_beside_them_has_a_row_for_each() -> None:
    folder = preset_folder()
    assert folder is not None
    text = (folder / "studies" / "README.md").read_text("utf-8")
    assert tuple(sorted(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))) == NAMES


def test_nothing_is_unfilled_in_a_study_without_a_reference() -> None:
    text = """
        [study]
        name = "scored"
        [space]
        preset = "usf"
        nfe = [4]
        [model]
        loader = "digits"
        [metric]
        kind = "score"
        score = "tests.support.plugins:asked_digit"
        direction = "maximize"
    """
    assert unfilled(config_from_text(text, "scored.toml")) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_valid_study_of_a_named_protocol(name: str) -> None:
    preset = study_preset(name)
    config = config_from_text(preset.text, name)
    assert config.study.name == name
    assert space_of(config).nfe == config.space.nfe
    assert config.metric.protocol in PROTOCOLS
    assert "Run so far with " in preset.text
    assert "random weights of the same class only" in preset.text
    assert "reference.path" in preset.blanks


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_in_the_comment_is_that_of_the_numbers_below_it(name: str) -> None:
    text = study_preset(name).text
    config = config_from_text(text, name)
    nfe, evaluations = config.space.nfe, config.search.evaluations
    assert evaluations is not None
    search = evaluations * config.search.n_images * sum(nfe) / len(nfe)
    most = SCHEDULES_VALIDATED[config.validation.finalists]
    validation = config.validation.n_images * sum(nfe) * most
    found = re.search(r"about ([\d.]+) million .* at most ([\d.]+) million", text)
    assert found is not None
    assert float(found[1]) == pytest.approx(search / 1e6, rel=0.03)
    assert float(found[2]) == pytest.approx(validation / 1e6, rel=0.03)
    assert f"x {most} schedules" in text


def test_the_marked_lines_of_the_classifier_are_a_valid_study() -> None:
    text = study_preset("imagenet64-adm").text
    marked = re.sub(r"^# (classifier\w* = )", r"\1", text, flags=re.MULTILINE)
    options = config_from_text(marked, "adm").model.options
    assert options["classifier_scale"] == 1.0
    ClassifierConfig.model_validate(options["classifier_config"])
    AdmConfig.model_validate(options["config"])


# --- searched with a tiny model of the same class ---


def _edm(folder: Path) -> list[str]:
    network = with_weights(EdmDenoiser(EDM))
    return [
        f"model.path={_state(folder / 'edm.pt', network)}",
        f"model.config={_table(EDM_FLAGS)}",
    ]


EDM_FLAGS = {
    "model_type": "SongUNet",
    "img_resolution": 8,
    "model_channels": 32,
    "channel_mult": [1, 1],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "augment_dim": 9,
}
EDM = SongConfig.model_validate({k: v for k, v in EDM_FLAGS.items() if k != "model_type"})


def _adm(folder: Path, *, guided: bool = False) -> list[str]:
    own = config_from_text(study_preset("imagenet64-adm").text, "adm").model.options["config"]
    small = {
        "image_size": 8,
        "num_channels": 32,
        "num_res_blocks": 1,
        "channel_mult": "1,2",
        "attention_resolutions": "4",
        "num_head_channels": 16,
        "n_classes": 5,
    }
    guide = {
        "image_size": 8,
        "classifier_width": 64,
        "classifier_depth": 1,
        "channel_mult": "1,1",
        "classifier_attention_resolutions": "4",
        "n_classes": 5,
    }
    model = AdmDenoiser(
        AdmConfig(**{**own, **small}), ClassifierConfig.model_validate(guide) if guided else None
    )
    with_weights(model)
    sets = [f"model.config.{key}={json.dumps(value)}" for key, value in small.items()]
    sets.append(f"model.path={_state(folder / 'adm.pt', model.network)}")
    if guided:
        assert model.classifier is not None
        sets.append(f"model.classifier={_state(folder / 'classifier.pt', model.classifier)}")
        sets.append(f"model.classifier_config={_table(guide)}")
    return sets


def _state(path: Path, module: nn.Module) -> Path:
    torch.save(module.state_dict(), path)
    return path


def _table(values: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + "}"


def _pipeline(build: Callable[[Path], Path], *sets: str) -> Callable[[Path], list[str]]:
    def made(folder: Path) -> list[str]:
        pytest.importorskip(
            "transformers",
            reason="transformers is not installed: pip install diffusers transformers",
        )
        pytest.importorskip(
            "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
        )
        return [f"model.path={build(folder / 'pipe')}", *sets]

    return made


def _half_sdxl(folder: Path) -> Path:
    """With the names of the smaller files."""
    from diffusers import StableDiffusionXLPipeline  # noqa: PLC0415  # an extra

    whole = pipelines.stable_diffusion_xl(folder.with_name("whole"))
    StableDiffusionXLPipeline.from_pretrained(whole).save_pretrained(folder, variant="fp16")
    return folder


MODELS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "cifar10-edm": ("cifar10-edm", _edm),
    "imagenet64-adm": ("imagenet64-adm", _adm),
    "imagenet64-adm, guided": ("imagenet64-adm", lambda folder: _adm(folder, guided=True)),
    "ldm-bedroom": ("ldm-bedroom", _pipeline(pipelines.ldm)),
    "dit": ("dit", _pipeline(pipelines.dit)),
    "sd15": ("sd15", _pipeline(pipelines.stable_diffusion)),
    "sdxl": ("sdxl", _pipeline(_half_sdxl)),
    "sd3": ("sd3", _pipeline(pipelines.stable_diffusion_3)),
    "flux": ("flux", _pipeline(pipelines.flux, "model.height=16", "model.width=16")),
}
BATCHES = {"imagenet64-adm, guided": 3, "dit": 2, "sd15": 2, "sdxl": 2, "sd3": 2}


def _reference(folder: Path, kind: str) -> Path:
    pictures = pipelines.references(size=16)
    if kind == "npz":
        seen = pipelines.pooled()(pictures).double().numpy()
        np.savez(folder / "real.npz", mu=seen.mean(0), sigma=np.cov(seen, rowvar=False))
        return folder / "real.npz"
    (folder / "real").mkdir()
    for i, picture in enumerate(pictures):
        levels = ((picture + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(folder / "real" / f"{i}.png")
    return folder / "real"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize("case", MODELS)
def test_a_preset_is_searched_with_a_tiny_model_of_its_class(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    name, make = MODELS[case]
    config = config_from_text(study_preset(name).text, name)
    assert config.metric.protocol is not None
    protocol = PROTOCOLS[config.metric.protocol]
    small = {"features": f"{__name__}:features", "n_images": N_VALIDATED}
    monkeypatch.setitem(PROTOCOLS, config.metric.protocol, protocol.model_copy(update=small))
    sets = make(tmp_path)
    if "prompts" in config.model.options:
        (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
        sets.append("model.prompts=prompts.txt")
    sets += [
        f"reference.path={_reference(tmp_path, config.reference.images)}",
        "space.nfe=[3]",
        "search.evaluations=12",
        "search.n_images=8",
        "validation.finalists=1",
        "cluster.address=inline",
        "cluster.gpus_per_worker=0",
    ]
    if case != "cifar10-edm":  # whose published solvers are measured, as those of any other
        sets.append(FEWER)
    assert said("preset", name, "-o", "study.toml")[0] == 0
    code, out, error = said("launch", "study.toml", "--json", *(f"--set={s}" for s in sets))
    assert code == 0, error
    rows = json.loads(out)["rows"]
    assert rows, out
    assert all(np.isfinite(row["value"]) for row in rows)
    assert said("export", name, "--nfe", "3", "-o", "schedule.json")[0] == 0
    words = ("schedule.json", "study.toml", "--n-images", "4", "--json")
    code, out, error = said("evaluate", *words, *(f"--set={s}" for s in sets))
    assert code == 0, error
    assert json.loads(out)["network_calls"] == 4 * 3 * BATCHES.get(case, 1)
