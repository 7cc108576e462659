"""Fine solves in files: read by whoever starts again, and never another model's."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.fine import FineSolver
from s3search.evaluation.kept_solves import KeptSolves, probed, room_in
from s3search.evaluation.noise import TARGET, NoiseBank
from s3search.evaluation.spec import EvaluatorSpec, MetricSpec
from s3search.processes import edm
from s3search.schedules import published
from s3search.search.questions import Rung, measure
from tests.support.forked import Forked

_CPU = torch.device("cpu")


class _Counting:
    """A denoiser that shrinks what it is given, and counts its images."""

    process, sample_shape = edm(), (1, 2, 2)

    def __init__(self, scale: float = 0.5) -> None:
        self.scale, self.n_images = scale, 0
        self.words = "word"

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.n_images += len(x)
        return self.scale * x / (1.0 + t.reshape(-1, 1, 1, 1)) + 0.01 * labels.reshape(-1, 1, 1, 1)

    def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"labels": torch.randint(10, (n,), generator=generator)}

    def captions(self, labels: Tensor) -> Sequence[str]:
        return [f"{self.words} {label}" for label in labels.tolist()]


def _bank(
    denoiser: _Counting, folder: Path, *, model: str = "m", max_bytes: int = 2**20
) -> NoiseBank:
    """What a worker has that has just begun."""
    solves = KeptSolves(
        solver=FineSolver(denoiser, 100),
        folder=folder,
        model=model,
        probe=lambda: probed(denoiser, NoiseBank(denoiser, _CPU)),
        captions=denoiser.captions,
        max_bytes=max_bytes,
    )
    return NoiseBank(denoiser, _CPU, fine_solve=solves)


def _targets(bank: NoiseBank, seed: int = 0, n_images: int = 150) -> Tensor:
    drawn = bank.batches(seed, n_images, 70, with_targets=True)
    return torch.cat([condition[TARGET] for _, condition in drawn])


def test_a_worker_that_starts_again_reads_what_was_solved(tmp_path: Path) -> None:
    first, again = _Counting(), _Counting()
    made = _targets(_bank(first, tmp_path))
    assert first.n_images == 2 * 100 * 32 + 2  # two blocks of noise, and the probe
    bank = _bank(again, tmp_path)
    assert torch.equal(_targets(bank), made)
    assert again.n_images == 2  # the probe alone
    assert bank.n_solved == 0
    assert _targets(bank, n_images=250)[:150].equal(made)
    assert bank.n_solved == 100  # the block that nobody had


def test_other_noise_models_and_captions_have_solves_of_their_own(tmp_path: Path) -> None:
    _targets(_bank(_Counting(), tmp_path), n_images=100)
    renamed = _Counting()
    renamed.words = "other"  # the prompts were edited, and their numbers are as before
    for bank in (
        _bank(_Counting(), tmp_path, model="other"),
        _bank(renamed, tmp_path),
    ):
        _targets(bank, n_images=100)
        assert bank.n_solved == 100
    bank = _bank(_Counting(), tmp_path)
    _targets(bank, seed=1, n_images=100)
    assert bank.n_solved == 100


def test_a_model_of_other_code_and_one_fingerprint_is_told_by_its_answer(tmp_path: Path) -> None:
    _targets(_bank(_Counting(), tmp_path))
    edited = _bank(_Counting(scale=0.6), tmp_path)
    alone = _targets(_bank(_Counting(scale=0.6), tmp_path / "elsewhere"))
    assert torch.equal(_targets(edited), alone)
    assert edited.n_solved == 200
    again = _bank(_Counting(scale=0.6), tmp_path)
    _targets(again)
    assert again.n_solved == 0  # the files are the present model's now


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_is_solved_again_with_a_warning(tmp_path: Path, damage: str) -> None:
    made = _targets(_bank(_Counting(), tmp_path), n_images=100)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-40], "empty": b"", "other": b"no archive"}[damage])
    bank = _bank(_Counting(), tmp_path)
    with pytest.warns(RuntimeWarning, match=r"npz: a fine solve is kept there and cannot be read"):
        assert torch.equal(_targets(bank, n_images=100), made)
    assert bank.n_solved == 100
    assert path.read_bytes() == content


def test_files_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    _targets(_bank(_Counting(), tmp_path), n_images=100)
    (path,) = tmp_path.iterdir()
    size = path.stat().st_size
    bank = _bank(_Counting(), tmp_path, max_bytes=3 * size)
    (tmp_path / "left.part").write_bytes(b"x" * (size // 2))  # of a process that was killed
    for seed in range(1, 5):
        _targets(bank, seed=seed, n_images=100)
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 3 * size
    last = _bank(_Counting(), tmp_path)
    _targets(last, seed=4, n_images=100)
    assert last.n_solved == 0
    _targets(_bank(_Counting(), tmp_path, max_bytes=size - 1), seed=9, n_images=100)
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 3 * size


def test_a_disk_with_much_room_lends_a_tenth_of_it(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    found = room_in(tmp_path / "not" / "there" / "yet")
    assert found == pytest.approx(max(2**32, free / 10), rel=0.05)


def test_where_nothing_can_be_written_one_warning_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    bank = _bank(_Counting(), tmp_path / "taken")
    with pytest.warns(RuntimeWarning, match="cannot be kept there .*S3SEARCH_CACHE") as warned:
        _targets(bank)
    assert len([each for each in warned if "kept" in str(each.message)]) == 1
    assert bank.n_solved == 200


def _solve_all(folder: Path) -> None:
    _targets(_bank(_Counting(), folder), n_images=800)


def test_two_processes_may_solve_at_once(tmp_path: Path) -> None:
    both = [Forked(_solve_all, tmp_path) for _ in range(2)]
    said = [each.communicate() for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    bank = _bank(_Counting(), tmp_path)
    alone = _targets(_bank(_Counting(), tmp_path / "elsewhere"), n_images=800)
    assert torch.equal(_targets(bank, n_images=800), alone)
    assert bank.n_solved == 0
    assert not list(tmp_path.glob("*.part"))


def test_an_evaluator_that_starts_again_measures_alike_without_a_solve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path))
    metric = MetricSpec(name="mse", kind="score", target="fine")
    spec = EvaluatorSpec(model="digits", metric=metric)
    question = measure(published.ddim(edm(), nfe=4), rung=Rung.SEARCH, n_images=150, noise_seed=3)
    first, again = Evaluator(spec), Evaluator(spec)
    found = first.evaluate(question).value
    assert first.noise.n_solved == 200
    assert again.evaluate(question).value == found
    assert again.noise.n_solved == 0
    assert {path.suffix for path in (tmp_path / "solves").iterdir()} == {".npz"}
