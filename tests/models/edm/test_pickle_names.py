"""What a pickle would call is named, or it is said that nobody can tell."""

import contextlib
import io
import json
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3search import cli
from s3search.errors import InvalidConfig
from s3search.models.edm.pickle_names import NamesOfPickle, names_of_pickle
from s3search.models.edm.pickles import foreign_of
from tests.models.edm.pickled import RunsCode, dump, own_network
from tests.models.edm.test_edm import SONG


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def _bytes(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


_RUN = _text("touch it_ran") + b"\x85R."
_DECOY = _text("collections") + _text("OrderedDict")
_SYSTEM = _text("os") + _text("system")
_TORCH = b"ctorch.storage\n_load_from_bytes\n"
_EVIL = pickle.dumps(RunsCode(Path("it_ran")))
_TRICKS = {
    "decoy popped behind the name": b"\x80\x04" + _SYSTEM + _DECOY + b"00\x93" + _RUN,
    "decoy put under a mark": b"\x80\x04" + _SYSTEM + b"(" + _DECOY + b"1\x93" + _RUN,
    "memo written over": b"\x80\x04" + _text("os") + b"q\x00" + _text("collections")
    + b"q\x01" + b"0h\x00" + _text("system") + b"\x93" + _RUN,
    "name made by a call": b"\x80\x04" + _text("os") + b"cbuiltins\nstr\n" + _text("system")
    + b"\x85R\x93" + _RUN,
    "name with a dot": b"\x80\x04" + _text("collections") + _text("abc.sys.modules") + b"\x93.",
    "name with a line": b"ccollections OrderedDict\nx\n.",
    "registered name": b"\x80\x02\x82\x01.",
    "persistent": b"Pos.system\n.",
    "two pickles": pickle.dumps({}) + _EVIL,
    "file of torch that runs": _TORCH + _bytes(_EVIL * 5) + b"\x85R.",
    "file of torch in pieces": _TORCH + b"cbuiltins\nbytes\n" + _bytes(_EVIL) + b"\x85R\x85R.",
    "reader handed on": b"(" + _TORCH + _bytes(_EVIL) + b"o.",
    "old instance": b"(" + _bytes(_EVIL) + b"itorch.storage\n_load_from_bytes\n.",
    "cut off": b"\x80\x04" + _SYSTEM + b"\x93" + _text("touch it_ran") + b"\x85R",
}  # fmt: skip


def _of(content: bytes, folder: Path) -> NamesOfPickle:
    path = folder / "some.pkl"
    path.write_bytes(content)
    return names_of_pickle(path)


@pytest.mark.parametrize("trick", _TRICKS)
def test_a_trick_is_named_or_not_told(trick: str, tmp_path: Path) -> None:
    found = _of(_TRICKS[trick], tmp_path)
    assert found.doubt is not None or foreign_of(found.names), found


def test_an_honest_checkpoint_is_told_whole(tmp_path: Path) -> None:
    found = names_of_pickle(dump(tmp_path / "net.pkl", {"ema": own_network(SONG)[1]}))
    assert (found.doubt, foreign_of(found.names)) == (None, ())
    assert "torch.storage._load_from_bytes" in found.names


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_tensors_own_file_is_looked_into(protocol: int, tmp_path: Path) -> None:
    storage = torch.arange(5.0).untyped_storage()
    harmless = _of(pickle.dumps(storage, protocol=max(protocol, 3)), tmp_path)
    assert harmless == NamesOfPickle(names=("torch.storage._load_from_bytes",), doubt=None)
    inner = io.BytesIO()
    torch.save(
        RunsCode(Path("x")), inner, pickle_protocol=protocol, _use_new_zipfile_serialization=False
    )
    evil = _of(_TORCH + _bytes(inner.getvalue()) + b"\x85R.", tmp_path)
    assert "builtins.exec" in evil.names or "__builtin__.exec" in evil.names or evil.doubt


class _Recorder(pickle.Unpickler):
    """Looks up nothing: remembers what it was asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.asked: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.asked.append(f"{module}.{name}")
        return _Harmless

    def persistent_load(self, pid: Any) -> Any:
        self.asked.append("a persistent object")
        return None


class _Harmless:
    """Takes anything, is nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Harmless":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """As a list."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


_WORDS = ["os", "system", "collections", "OrderedDict", "a.b", "x y"]
_ARGUMENTS = {
    "TEXT": st.sampled_from(_WORDS).map(_text),
    "GLOBAL": st.tuples(st.sampled_from(_WORDS), st.sampled_from(_WORDS)).map(
        lambda pair: f"c{pair[0]}\n{pair[1]}\n".encode()
    ),
    "INST": st.sampled_from(_WORDS).map(lambda word: f"i{word}\nsystem\n".encode()),
    "MEMO": st.tuples(st.sampled_from("qh"), st.integers(0, 3)).map(
        lambda pair: pair[0].encode() + bytes([pair[1]])
    ),
    "BYTES": st.binary(max_size=4).map(_bytes),
}
_PLAIN = st.sampled_from(
    [
        opcode.code.encode("latin-1")
        for opcode in pickletools.opcodes
        if opcode.arg is None and opcode.name not in {"STOP", "NEXT_BUFFER"}
    ]
)
_PIECES = st.one_of(*_ARGUMENTS.values(), _PLAIN, st.just(b"\x93"), st.just(b"\x94"))


@settings(deadline=None)
@given(pieces=st.lists(_PIECES, max_size=30))
def test_nothing_is_looked_up_that_was_not_named(
    pieces: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = b"\x80\x04" + b"".join(pieces) + b"."
    recorder = _Recorder(content)
    with contextlib.suppress(Exception):  # of garbage; what was asked for until then counts
        recorder.load()
    try:
        found = _of(content, tmp_path_factory.getbasetemp())
    except InvalidConfig:
        assert recorder.asked == []
        return
    assert found.doubt is not None or set(recorder.asked) <= set(found.names)


def test_the_command_refuses_to_vouch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.pkl"
    path.write_bytes(_TRICKS["two pickles"])
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--json"]):
        asked = ["s3search", "tools", "checkpoint", "inspect", str(path), *words]
        monkeypatch.setattr("sys.argv", asked)
        assert cli.run() == 2
        said = capsys.readouterr()
        assert "cannot be told" in said.err and "do not trust it" in said.err
        assert not words or "behind its end" in json.loads(said.out)["cannot_be_told"]
    assert [each.name for each in tmp_path.iterdir()] == ["some.pkl"]
