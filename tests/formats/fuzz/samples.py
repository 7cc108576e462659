"""Valid files of each kind, and how each is spoilt.

Formats that carry a checksum or a length of their content are spoilt inside as well, and packed
again, so that not all of them fail at the first byte.
"""

import io
import json
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import save

from tests.formats.fuzz.mutations import damaged, json_of_tree, leaf, reworded, spoilt
from tests.models.edm.pickled import RunsCode

_DAMAGED = 0.25  # of the inputs have their bytes changed and nothing else
_ALSO_DAMAGED = 0.1  # of the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file that its reader takes, and how its content is spoilt."""

    name: str  # a path inside the folder of one run
    valid: bytes
    spoil: Callable[[random.Random], bytes]

    def hostile(self, chance: random.Random) -> bytes:
        """One of its spoilt forms."""
        if chance.random() < _DAMAGED:
            return damaged(chance, self.valid)
        try:
            made = self.spoil(chance)
        except Exception:  # a writer that writes no such file
            made = damaged(chance, self.valid)
        return damaged(chance, made) if chance.random() < _ALSO_DAMAGED else made


def of_json(name: str, value: Any) -> Sample:
    """A JSON document."""
    valid = json.dumps(value).encode()
    return Sample(name=name, valid=valid, spoil=lambda chance: json_of_tree(chance, value))


def of_text(name: str, text: str) -> Sample:
    """A text of words and numbers."""
    return Sample(name=name, valid=text.encode(), spoil=lambda chance: reworded(chance, text))


def of_bytes(name: str, content: bytes) -> Sample:
    """Anything, spoilt byte by byte."""
    return Sample(name=name, valid=content, spoil=lambda chance: damaged(chance, content))


# --- numpy ---


def of_npz(name: str, arrays: Mapping[str, Any]) -> Sample:
    """An archive of arrays."""
    return Sample(
        name=name,
        valid=_npz(arrays),
        spoil=lambda chance: _npz(_spoilt_arrays(chance, arrays), chance),
    )


def of_npy(name: str, array: Any) -> Sample:
    """One array."""
    return Sample(
        name=name,
        valid=_npy(array),
        spoil=lambda chance: _npy(_spoilt_arrays(chance, {"x": array}).get("x", array), chance),
    )


def _npy(array: Any, chance: random.Random | None = None) -> bytes:
    content = io.BytesIO()
    np.save(content, np.asarray(array), allow_pickle=True)
    made = content.getvalue()
    if chance is not None and chance.random() < 0.25:
        end = made.index(b"\n")
        made = reworded(chance, made[10:end].decode("latin-1"))[: 2**15] + b"\n" + made[end + 1 :]
        head = made.index(b"\n") + 1
        made = b"\x93NUMPY\x01\x00" + struct.pack("<H", head) + made
    return made


def _npz(arrays: Mapping[str, Any], chance: random.Random | None = None) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(content, "w") as archive:
        warnings.simplefilter("ignore")  # of names that stand there twice
        for name, array in arrays.items():
            file = name if chance is not None and chance.random() < 0.05 else f"{name}.npy"
            archive.writestr(file.replace("\ud800", "?") or "x", _npy(array, chance))
        if chance is not None and chance.random() < 0.05:
            archive.writestr(f"{[*arrays, 'mu'][0]}.npy", b"not an array")
    return content.getvalue()


def _spoilt_arrays(chance: random.Random, arrays: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = dict(arrays)
    for _ in range(chance.choice((1, 1, 2))):
        key = chance.choice([*arrays])
        array = np.asarray(changed.get(key, arrays[key]))
        match chance.randrange(6):
            case 0:
                changed.pop(key, None)
            case 1:
                changed[f"{key}_"] = changed.pop(key, array)
            case _:
                changed[key] = spoilt_array(chance, array)
    return changed


def spoilt_array(chance: random.Random, array: Any) -> Any:
    """An array of another shape, kind or content."""
    made = np.array(array)
    match chance.randrange(12):
        case 0:
            return made[None]
        case 1:
            return made.ravel()
        case 2:
            return made.T
        case 3:
            return made[:0] if made.ndim else np.zeros(0)
        case 4:
            return made[:-1] if made.ndim else made
        case 5:
            kinds = (
                "f2",
                "f4",
                "i8",
                "u1",
                "c16",
                "?",
                "U8",
                "S8",
                "O",
                "M8[s]",
                "m8[s]",
                "f4,i4",
            )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return made.astype(chance.choice(kinds))
            except (ValueError, TypeError):
                return np.zeros(made.shape, "V3")
        case 6:
            return np.asarray(chance.choice(("", "x\0\ud800", 0, -1, 2**62, 1e400, True)))
        case 7:
            return np.asarray(leaf(chance), dtype=object)
        case 8:
            return made * chance.choice((0, -1)) if made.dtype.kind in "fi" else made
    if made.size and made.dtype.kind == "f":
        numbers = (np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320, -1.0, 0.0, 1e154)
        made.flat[chance.randrange(made.size)] = chance.choice(numbers)
    elif made.size and made.dtype.kind in "iu":
        made.flat[chance.randrange(made.size)] = 0
    return made


# --- safetensors ---


def of_safetensors(
    name: str, arrays: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
) -> Sample:
    """Arrays with a header of texts; texts that are JSON themselves are spoilt as such."""
    kept = None if metadata is None else dict(metadata)

    def packed(arrays: Mapping[str, Any]) -> bytes:
        return save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=kept)

    valid = packed(arrays)

    def spoil(chance: random.Random) -> bytes:
        content = valid
        if chance.random() < 0.5:
            changed = _spoilt_arrays(chance, arrays)
            fitting = {k.replace("\ud800", "?"): v for k, v in changed.items() if v.dtype != "O"}
            try:
                content = packed(fitting)
            except (KeyError, ValueError, SafetensorError):  # a kind that the format has not
                content = valid
            if chance.random() < 0.5:
                return content
        return _with_header(chance, content)

    return Sample(name=name, valid=valid, spoil=spoil)


def _with_header(chance: random.Random, content: bytes) -> bytes:
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    documents = [key for key, text in metadata.items() if text[:1] in "{["]
    if metadata and chance.random() < 0.6:
        if documents and chance.random() < 0.5:
            key = chance.choice(documents)
            text = json_of_tree(chance, json.loads(metadata[key])).decode("utf-8", "replace")
        else:
            key = chance.choice([*metadata])
            text = reworded(chance, metadata[key]).decode("utf-8", "replace")
        header["__metadata__"] = {**metadata, key: text}
        made = json.dumps(header).encode()
    else:
        made = json_of_tree(chance, header)
    length = len(made) if chance.random() < 0.9 else chance.choice((0, 2**63, len(made) - 1))
    return struct.pack("<Q", length) + made + content[8 + size :]


# --- torch and pickles ---


def of_torch(name: str, content: Any) -> Sample:
    """What torch.save writes of tensors in containers."""
    return Sample(
        name=name,
        valid=_torch(content),
        spoil=lambda chance: _spoilt_torch(chance, content),
    )


def of_pickle(
    name: str, content: bytes, spoil: Callable[[random.Random], bytes] = lambda _: b""
) -> Sample:
    """A pickle, spoilt as a program, by operations of its own and of others, or as ``spoil``
    does.
    """

    def either(chance: random.Random) -> bytes:
        other = spoil(chance) if chance.random() < 0.5 else b""
        return other or with_operations(chance, content)

    return Sample(name=name, valid=content, spoil=either)


def _torch(content: Any, *, is_old: bool = False) -> bytes:
    made = io.BytesIO()
    torch.save(content, made, _use_new_zipfile_serialization=not is_old)
    return made.getvalue()


def _spoilt_torch(chance: random.Random, content: Any) -> bytes:
    changed = spoilt(chance, content, _torch_leaf) if chance.random() < 0.7 else content
    try:
        made = _torch(changed, is_old=chance.random() < 0.2)
    except (UnicodeEncodeError, RecursionError, RuntimeError):  # it writes no such text
        made = _torch(content)
    if chance.random() < 0.6 or not zipfile.is_zipfile(io.BytesIO(made)):
        return made
    inner = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made)) as old, zipfile.ZipFile(inner, "w") as new:
        for each in old.namelist():
            part = old.read(each)
            if each.endswith("data.pkl"):
                part = with_operations(chance, part)
            elif chance.random() < 0.1:
                part = damaged(chance, part)
            if chance.random() > 0.03:
                new.writestr(each, part)
    return inner.getvalue()


def _torch_leaf(chance: random.Random) -> Any:
    made = (
        torch.tensor(float("nan")),
        torch.zeros(0),
        torch.zeros((2, 3)),
        torch.tensor([1.0, float("inf"), 0.1, 0.0]),
        torch.arange(6),
        torch.zeros(4, dtype=torch.complex64),
        torch.ones(4, dtype=torch.bool),
        torch.ones(4, dtype=torch.bfloat16),
        torch.ones(3, requires_grad=True),
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        torch.zeros(1).expand(5000),
        torch.empty(3, device="meta"),
        torch.nn.Parameter(torch.ones(2)),
        torch.float32,
        torch.Size([1, 2]),
        np.float64(0.5),
        np.ones(3),
        {1: 2, (1, 2): 3},
        {1, 2},
        b"bytes",
        1j,
        RunsCode(Path("s3search_it_ran")),
        torch.nn.Linear(1, 1),
    )
    return chance.choice(made) if chance.random() < 0.5 else leaf(chance)


_NAMES = (
    b"cos\nsystem\n",
    b"cbuiltins\nexec\n",
    b"cbuiltins\ngetattr\n",
    b"csubprocess\nPopen\n",
    b"ctests.formats.fuzz.canary\nrun\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.storage\n_load_from_bytes\n",
    b"cnumpy._core.multiarray\nscalar\n",
    b"cnumpy\ndtype\n",
    b"itests.formats.fuzz.canary\nrun\n",
    b"\x8c\x02os\x8c\x06system\x93",
)
_OPERATIONS = (
    b"(", b")", b"]", b"}", b"l", b"d", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"o", b"a",
    b"e", b"s", b"u", b"0", b"1", b"2", b".", b"N", b"\x88", b"\x94", b"\x81", b"\x92", b"Q",
    b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\xff" + b"\x7f" * 255, b"G\x7f\xf0" + b"\0" * 6,
    b"h\x00", b"q\x00", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\xff", b"I99999999999\n", b"Fnan\n",
    b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8, b"\x8e" + b"\x7f" * 8, b"B\xff\xff\xff\xff",
    b"X\x04\x00\x00\x00true", b"\x8c\x04true", b"V\\ud800\n", b"L1L\n", b"P1\n", b"\x82\x01",
    b"\x95" + b"\xff" * 8, b"\x80\x09", b"\x96" + b"\x01" + b"\0" * 7 + b"x",
)  # fmt: skip


def with_operations(chance: random.Random, content: bytes) -> bytes:
    """A pickle with operations put into it, in front of it or in its end's place."""
    made = b"".join(
        chance.choice(_NAMES) if chance.random() < 0.3 else chance.choice(_OPERATIONS)
        for _ in range(chance.randrange(1, 6))
    )
    match chance.randrange(6):
        case 0:
            return pickle.dumps(RunsCode(Path("s3search_it_ran")))
        case 1:
            return content[:2] + made + content[2:]
        case 2:
            return content[:-1] + made + b"."
        case 3:
            return b"(" * 100_000 + content if chance.random() < 0.1 else made + b"."
        case 4:
            return damaged(chance, content)
    at = chance.randrange(len(content))
    return content[:at] + made + content[at:]


# --- pictures ---


def of_picture(name: str, picture: Image.Image, form: str) -> Sample:
    """A picture; of a PNG also its chunks, with a checksum that fits."""
    content = io.BytesIO()
    picture.save(content, form)
    valid = content.getvalue()

    def spoil(chance: random.Random) -> bytes:
        return _with_chunk(chance, valid) if form == "PNG" else damaged(chance, valid)

    return Sample(name=name, valid=valid, spoil=spoil)


def _with_chunk(chance: random.Random, content: bytes) -> bytes:
    chunks, at = [], 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    i = chance.randrange(len(chunks))
    kind, data = chunks[i]
    match chance.randrange(5):
        case 0:
            chunks[i] = (kind, damaged(chance, data))
        case 1:
            sizes = [chance.choice((0, 1, 7, 50_000, 2**31 - 1)) for _ in range(2)]
            rest = bytes(chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 255)) for _ in range(2))
            chunks[0] = (b"IHDR", struct.pack(">II", *sizes) + rest + b"\0\0\0")
        case 2:
            other = chance.choice((b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"fdAT", b"eXIf"))
            chunks.insert(max(1, i), (other, chance.randbytes(chance.randrange(40))))
        case 3:
            bomb = zlib.compress(b"\0" * chance.choice((0, 10, 10_000_000)))
            chunks[i] = (chance.choice((b"IDAT", b"zTXt", b"iCCP")), b"x\0\0" + bomb)
        case 4:
            chunks.insert(i, chunks[i])
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return content[:8] + b"".join(packed)
