"""Which code a process runs, and when a worker is refused for it."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

import s3search
from s3search.cluster.ray.worker import RayWorker
from s3search.cluster.versions import CodeVersion, mismatch, source_digest
from s3search.errors import WorkersUnavailable
from tests.suites.pool_suite import make_squarer

HERE = CodeVersion.of_this_process()


def tree(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_this_process_runs_this_release_whatever_the_build_of_torch() -> None:
    assert HERE.s3search == s3search.__version__
    assert version("torch").startswith(HERE.torch)
    assert "+" not in HERE.torch
    assert CodeVersion.of_this_process() == HERE


@pytest.mark.parametrize(
    "other",
    [{"a": "1", "b": "3"}, {"a": "12", "b": ""}, {"a": "1"}, {"a": "1", "c": "2"}],
    ids=["a changed file", "a moved line", "a missing file", "a renamed file"],
)
def test_any_change_to_a_source_file_changes_the_digest(
    tmp_path: Path, other: dict[str, str]
) -> None:
    digest = source_digest(tree(tmp_path / "one", a="1", b="2"))
    assert digest == source_digest(tree(tmp_path / "same", a="1", b="2"))
    assert digest != source_digest(tree(tmp_path / "other", **other))


def test_what_is_no_source_file_changes_nothing(tmp_path: Path) -> None:
    package = tree(tmp_path / "package", a="1")
    digest = source_digest(package)
    (package / "a.pyc").write_bytes(b"compiled")
    assert source_digest(package) == digest


@pytest.mark.parametrize("field", ["s3search", "sources", "torch"])
def test_other_code_is_refused_in_a_sentence_with_the_node_and_both_versions(field: str) -> None:
    other = replace(HERE, **{field: "0.0.7"})
    sentence = mismatch(HERE, other, "gpu-17/4711")
    assert sentence is not None
    assert "node gpu-17 runs" in sentence
    assert str(HERE) in sentence and str(other) in sentence
    assert mismatch(HERE, HERE, "gpu-17/4711") is None


def test_a_worker_of_other_code_loads_nothing_and_says_why() -> None:
    worker = RayWorker()
    error = worker.load(b"never unpickled", None, [], replace(HERE, s3search="0.0.7"))
    assert isinstance(error, WorkersUnavailable)
    assert "the driver runs s3search 0.0.7" in str(error)


def test_a_worker_of_the_same_code_loads() -> None:
    import ray.cloudpickle  # noqa: PLC0415  a second, which the other tests do not need

    worker = RayWorker()
    assert worker.load(ray.cloudpickle.dumps(make_squarer), None, [], HERE) is None
