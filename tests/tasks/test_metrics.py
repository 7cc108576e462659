"""`s3search tools metrics` and `tools reference`: every number with its provenance, as typed."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s3search.cli import run
from s3search.cli.output import OUT
from s3search.evaluation.evaluator import Evaluator
from s3search.metrics.kernel import kernel_distance
from s3search.metrics.precision_recall import manifolds
from s3search.models import digits
from s3search.processes import edm, flow
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung, measure
from s3search.study.file.config import load_config
from s3search.study.file.protocols import PROTOCOLS, Protocol
from tests.metrics.extractors.models import save_clip

SCHEDULE = published.unipc(edm(), nfe=4)
SHARES = ("precision", "recall", "density", "coverage")
STUDY = """\
[study]
name = "t"
[model]
loader = "digits"
[space]
nfe = [4]
[metric]
features = "digits"
[reference]
images = "digits"
"""


class _Captioned(digits.DigitsDenoiser):
    """Digits that are asked for in words."""

    def captions(self, labels: torch.Tensor) -> list[str]:
        return ["a digit zero" if label == 0 else "a digit" for label in labels.tolist()]


def captioned() -> Any:
    """A model with texts, for the CLIP score."""
    model = digits.load()
    model.__class__ = _Captioned
    return model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file and a schedule in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OUT, "_width", 140)  # whenever it was made
    monkeypatch.delenv("S3SEARCH_STORAGE", raising=False)
    (tmp_path / "study.toml").write_text(STUDY)
    SCHEDULE.save(tmp_path / "schedule.json")
    return tmp_path


def _typed(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: Any) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["s3search", *map(str, words)])
    capsys.readouterr()
    code = run()
    said = capsys.readouterr()
    return code, said.out, said.err


def _metrics(*words: Any) -> tuple[Any, ...]:
    return ("tools", "metrics", "schedule.json", "study.toml", "--n-trajectory", 20, *words)


def test_the_report_has_every_metric_with_its_provenance(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = _metrics("--set", "validation.n_images=200", "--seed", 3, "--json")
    code, out, err = _typed(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    report = json.loads(out)
    found = {m["metric"]: m for m in report["metrics"]}
    evaluator = Evaluator(load_config(here / "study.toml").evaluator_spec)
    measured = evaluator.evaluate(measure(SCHEDULE, rung=Rung.USER, n_images=200, noise_seed=3))
    assert measured.value is not None
    assert found["frechet"]["value"] == pytest.approx(measured.value, rel=1e-12)
    assert found["frechet"]["standard_error"] == pytest.approx(measured.standard_error, rel=1e-9)
    made = evaluator.metric.seen(evaluator.images(SCHEDULE, 200, 3), {})
    real = evaluator.metric.seen(digits.images(), {})
    kernel = kernel_distance(real, made)
    assert found["kernel"]["value"] == pytest.approx(kernel.value, rel=1e-5)
    shares = manifolds(real, made)
    for name in SHARES:
        assert found[name]["value"] == pytest.approx(getattr(shares, name), abs=0.01)
        assert (found[name]["n_images"], found[name]["n_real"]) == (200, 1797)
    for name in ("trajectory_pixels", "trajectory_features"):
        assert found[name]["value"] > 0
        assert found[name]["n_images"] == 20
    assert found["trajectory_pixels"]["extractor"] == "pixels"
    assert {m["extractor"] for m in found.values()} == {"pixels", "digits-a"}
    assert report["reference_digest"] == evaluator.reference.digest
    assert report["model_fingerprint"] == evaluator.model_fingerprint
    assert (report["schedule_id"], report["nfe"], report["noise_seed"]) == (SCHEDULE.id, 4, 3)


def test_a_protocol_is_named_only_where_its_number_of_images_was_made(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    small = Protocol(features="digits", n_images=40, references=("digits",), source="this test")
    monkeypatch.setitem(PROTOCOLS, "digits-40", small)
    protocol = ("--set", "metric.protocol=digits-40", "--json")
    _, out, _ = _typed(monkeypatch, capsys, *_metrics(*protocol))
    report = json.loads(out)
    assert (report["protocol"], report["metrics"][0]["n_images"]) == ("digits-40", 40)
    _, out, _ = _typed(monkeypatch, capsys, *_metrics("--n-images", 39, *protocol))
    assert json.loads(out)["protocol"] is None


def test_a_fine_schedule_is_nearer_to_images_and_solution(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def values(schedule: Schedule) -> dict[str, float]:
        schedule.save(here / "schedule.json")
        _, out, _ = _typed(monkeypatch, capsys, *_metrics("--n-images", 300, "--json"))
        return {m["metric"]: m["value"] for m in json.loads(out)["metrics"]}

    fine, coarse = values(published.unipc(edm(), nfe=20)), values(published.unipc(edm(), nfe=3))
    for name in ("frechet", "kernel", "trajectory_pixels", "trajectory_features"):
        assert fine[name] < coarse[name], name
    assert fine["recall"] > coarse["recall"]
    assert fine["density"] < coarse["density"]  # few calls make images too much alike


def test_the_table_fits_and_says_why_a_metric_is_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert _typed(monkeypatch, capsys, "tools", "reference", "study.toml", "-o", "ref.npz")[0] == 0
    npz = ("--set", "reference.images=npz", "--set", "reference.path=ref.npz")
    code, out, err = _typed(monkeypatch, capsys, *_metrics("--n-images", 80, *npz))
    assert (code, err) == (0, "")
    assert "frechet" in out
    assert out.count("the reference is a file of statistics") == 5
    assert "…" not in out


def test_few_images_leave_out_what_needs_more(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    _, out, _ = _typed(monkeypatch, capsys, *_metrics("--n-images", 4, "--json"))
    found = {m["metric"]: m for m in json.loads(out)["metrics"]}
    assert found["precision"]["value"] is None
    assert "5 nearest neighbours" in found["precision"]["note"]
    assert found["frechet"]["value"] > 0


def test_the_clip_score_compares_with_the_texts_of_the_model(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    clip = save_clip(here)
    words = _metrics("--n-images", 30, "--clip", clip, "--json")
    code, _, err = _typed(monkeypatch, capsys, *words)
    assert code == 2
    assert "captions(**condition)" in err
    worded = (*words, "--set", "model.loader=tests.tasks.test_metrics:captioned")
    code, out, err = _typed(monkeypatch, capsys, *worded)
    assert (code, err) == (0, "")
    (score,) = [m for m in json.loads(out)["metrics"] if m["metric"] == "clip_score"]
    assert 0.0 <= score["value"] <= 2.5
    assert score["n_images"] == 30
    assert score["extractor"].startswith("clip-")


def test_a_schedule_for_another_process_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    published.unipc(flow(), nfe=3).save(here / "schedule.json")
    code, _, err = _typed(monkeypatch, capsys, *_metrics("--n-images", 10))
    assert code == 2
    assert "process: this is a schedule for" in err


def test_written_statistics_have_the_digest_that_evaluations_store(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = here / "pictures"
    folder.mkdir()
    pixels = ((digits.images()[:30, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{i:02}.png")
    text = STUDY.replace(
        'images = "digits"',
        f'images = "folder"\npath = "{folder}"\nchannels = 1\nstatistics = "ref.npz"',
    )
    (here / "study.toml").write_text(text)
    code, _, err = _typed(monkeypatch, capsys, *_metrics("--n-images", 10))
    assert code == 2  # not written yet
    assert "ref.npz" in err
    words = ("tools", "reference", "study.toml", "-o", "ref.npz", "--json")
    code, out, err = _typed(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    said = json.loads(out)
    with np.load(here / "ref.npz") as data:
        assert data["mu"].shape == (64,)
        assert (int(data["n"]), str(data["extractor"])) == (30, "digits-a")
    evaluator = Evaluator(load_config(here / "study.toml").evaluator_spec)
    assert (evaluator.reference.digest, evaluator.reference.n) == (said["digest"], 30)
    assert evaluator.real.digest == said["source"]


def test_statistics_have_a_place_and_a_suffix(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for output, message in (("ref.txt", "written as .npz"), ("none/ref.npz", "no folder none")):
        words = ("tools", "reference", "study.toml", "-o", output)
        code, _, err = _typed(monkeypatch, capsys, *words)
        assert code == 2
        assert message in err
