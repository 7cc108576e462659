"""What fuzzing found: the least file that stopped a reader with a traceback, or worse."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from s3search.errors import InvalidConfig, InvalidSchedule, S3SearchError
from s3search.metrics.references import dataset
from s3search.models.diffusers.scheduler_config import model_of
from s3search.models.edm.pickle_names import NamesOfPickle
from tests.formats.fuzz.readers import READERS
from tests.formats.fuzz.running import write
from tests.formats.importers.files import decisions
from tests.models.edm.pickled import Persistent, dump
from tests.models.test_guided_diffusion import FLAGS


def _torch(content: Any) -> bytes:
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


def _steps(tensor: Any) -> bytes:
    return _torch(decisions(timesteps=tensor))


def _holding_itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def _doubled(times: int) -> Any:
    made: Any = 1.0
    for _ in range(times):
        made = [made, made]
    return made


def _npz(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return made.getvalue()


def _npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


_NO_HEADER = b"\x93NUMPY\x01\x00" + struct.pack("<H", 10) + b"{'descr': ("
_ONE = np.eye(4)[:, :1]


def _gaussian(arrays: dict[str, Any] | None = None, **header: str) -> bytes:
    whole = {"mean": np.zeros((1, 2, 2)), "eigenvalues": np.ones(1), "eigenvectors": _ONE.copy()}
    usual = {"rest": "0.5", "n": "9", "provenance": "{}"}
    words = {"format": "s3search.gaussian", "version": "1", **usual, **header}
    return save({**whole, **(arrays or {})}, metadata=words)


def _ems(provenance: str) -> bytes:
    arrays = {name: np.zeros((2, 1, 1, 1)) for name in ("l", "s", "b")}
    words = {"format": "s3search.ems", "version": "1", "lam_start": "-1", "lam_end": "1"}
    return save(arrays, metadata={**words, "digest": "", "provenance": provenance})


def _png(text: bytes) -> bytes:
    chunks = [
        (b"IHDR", struct.pack(">II", 1, 1) + b"\x08\x00\x00\x00\x00"),
        (b"zTXt", b"x\0\0" + zlib.compress(text)),
        (b"IDAT", zlib.compress(b"\0\0")),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _pickle(**state: Any) -> Callable[[Path], bytes]:
    def made(folder: Path) -> bytes:
        network = Persistent("EDMPrecond", state)
        return dump(folder / "made", {"ema": network}).read_bytes()

    return made


_DEEP = "[" * 100_000
CASES: dict[str, tuple[str, str, bytes | Callable[[Path], bytes], str]] = {
    "tensor without numbers": (
        "import usf", "a.pth", _steps(torch.empty(4, device="meta")), "no plain list"
    ),
    "sparse tensor": ("import usf", "a.pth", _steps(torch.eye(3).to_sparse()), "no plain list"),
    "complex tensor": ("import ld3", "a.pt", _torch(torch.zeros(8) + 0j), "no plain list"),
    "a number a billion times": (
        "import usf", "a.pth", _steps(torch.zeros(1).expand(10**9)), "more than 1000000 values"
    ),
    "a list in itself": ("import usf", "a.pth", _steps(_holding_itself()), "deep"),
    "lists of one list": ("import usf", "a.pth", _steps(_doubled(19)), "more than 1000000"),
    "no archive": ("usf's mean image", "mean.npz", b"PK\x05\x06", "cannot be read"),
    "a header without end": ("usf's mean image", "mean.npy", _NO_HEADER, "cannot be read"),
    "a complex image": (
        "usf's mean image", "mean.npy", _npy(np.zeros((1, 2, 2)) + 1j), "expected the numbers"
    ),
    "statistics without end": (
        "reference statistics", "a.npz", _npz(mu=_NO_HEADER), "holds no mu and sigma"
    ),
    "statistics of no array": (
        "reference statistics", "a.npz", _npz(mu=b"text", sigma=b"text"), "'mu' is no array"
    ),
    "provenance too deep": ("EMS statistics", "a.safetensors", _ems(_DEEP), "no EMS statistics"),
    "provenance of another kind": (
        "EMS statistics", "a.safetensors", _ems("[1]"), "no EMS statistics"
    ),
    "a number that is none": (
        "Gaussian statistics", "a.safetensors", _gaussian(rest="1j"), "no Gaussian statistics"
    ),
    "a variance below 0": (
        "Gaussian statistics", "a.safetensors", _gaussian(rest="-1"), "0 or more"
    ),
    "an infinite variance": (
        "Gaussian statistics", "a.safetensors", _gaussian(rest="inf"), "0 or more"
    ),
    "shapes that do not fit": (
        "Gaussian statistics", "a.safetensors",
        _gaussian({"eigenvectors": np.eye(3)}), "eigenvectors of shape",
    ),
    "skewed eigenvectors": (
        "Gaussian statistics", "a.safetensors",
        _gaussian({"eigenvectors": 1e200 * _ONE}), "not orthonormal",
    ),
    "not a number": (
        "Gaussian statistics", "a.safetensors",
        _gaussian({"mean": np.full((1, 2, 2), np.nan)}), "no finite floats",
    ),
    "a node without moments": (
        "node of an EMS job", "a.safetensors", save({"d": np.zeros(1)}), "no node of an EMS job"
    ),
    "no factor": (
        "adm settings", "a.json", json.dumps({**FLAGS, "channel_mult": [float("nan")]}).encode(),
        "channel_mult is nan",
    ),
    "no heads": (
        "adm settings", "a.json", json.dumps({**FLAGS, "num_head_channels": 0}).encode(),
        "no network has these settings",
    ),
    "more channels than numbers": (
        "adm settings", "a.json", json.dumps({**FLAGS, "num_channels": 10**400}).encode(),
        "no size of a network",
    ),
    "a record without weights": (
        "edm pickle, converted", "a.pkl", _pickle(_modules={}), "not those of a module"
    ),
    "a record without modules": (
        "edm pickle, converted", "a.pkl", _pickle(_init_kwargs=3), "not those of a module"
    ),
    "a text too long for a picture": (
        "pictures", "a.png", _png(b"x" * 2_000_000), "cannot be read as a picture"
    ),
    "a stretch to nothing": (
        "import diffusers", "a.json",
        b'{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1e-320, '
        b'"shift_terminal": 0.1}',
        "make no schedule|must",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    reader, file, content, words = CASES[name]
    for beside, own in READERS[reader].beside().items():
        write(tmp_path / beside, own)
    path = tmp_path / file
    write(path, content if isinstance(content, bytes) else content(tmp_path))
    with pytest.raises(S3SearchError, match=words) as caught:
        READERS[reader].read(path)
    assert len(str(caught.value)) <= 2000


def test_a_study_may_name_a_preset_too_long_for_a_file(tmp_path: Path) -> None:
    text = READERS["study"].samples()
    whole = next(each for each in text if each.name == "small.toml").valid.decode()
    path = tmp_path / "study.toml"
    path.write_text(whole.replace("nfe = [3]", f'nfe = [3]\npreset = "{"x" * 3000}"'))
    with pytest.raises(InvalidConfig, match="no preset"):
        READERS["study"].read(path)


def test_an_escape_in_a_pickle_is_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"S'\\%'\n.")
    assert READERS["edm pickle, inspected"].read(path) == NamesOfPickle(names=(), doubt=None)


def test_a_message_that_quotes_too_much_leaves_its_middle_out() -> None:
    said = str(InvalidSchedule(f"times: found {'9' * 60_000}; give fewer digits"))
    assert len(said) == 2000
    assert said.startswith("times: found 999") and said.endswith("; give fewer digits")
    assert " ... " in said


@pytest.mark.parametrize(
    "change", [{"beta_end": [0.012]}, {"trained_betas": 3}, {"prediction_type": {}}]
)
def test_a_scheduler_config_of_other_kinds_is_refused(change: dict[str, Any]) -> None:
    config = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, **change}
    with pytest.raises(InvalidSchedule, match="no noise process follows"):
        model_of(config)


def test_texts_that_end_outside_their_file_are_refused() -> None:
    pa = pytest.importorskip("pyarrow")
    tables = pytest.importorskip("datasets.table")
    offsets = pa.py_buffer(struct.pack("<iii", 0, 2**30, 2))
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])

    class Damaged:
        data = tables.InMemoryTable(pa.table({"image": texts}))

    with pytest.raises(InvalidConfig, match="are damaged"):
        dataset._check_table("folder", Damaged())


def test_a_data_set_whose_state_is_no_object_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for name, content in READERS["dataset on disk"].beside().items():
        write(tmp_path / name, content)
    write(tmp_path / "state.json", b"[1]")
    with pytest.raises(InvalidConfig, match="no dataset that save_to_disk wrote"):
        dataset.load(str(tmp_path))


def test_an_archive_that_unfolds_to_very_much_is_refused_unread(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mu.npy", bytes(80 * 2**20))
    with pytest.raises(S3SearchError, match=r"unfold to 83,886,080: no arrays of numbers do"):
        READERS["reference statistics"].read(bomb)
