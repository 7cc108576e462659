"""Prompts, split once and for all, and their embeddings, computed once.

A prompt belongs to the held-out ones by a hash of its own text, so that prompts added to a file
move no other to the other side.

An embedding is kept in memory, up to a limit, and in a folder, if there is one, under a hash of
the text and of all that makes the embedding (weights of the encoders, tokenizers, dtype).
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.diffusers.captions import Prompt, read_prompts
from s3search.models.diffusers.conditions import Given, balanced, filled_up

__all__ = [
    "EmbeddingCache",
    "Encode",
    "Prompt",
    "PromptNumbers",
    "Prompts",
    "is_held_out",
    "read_prompts",
]

_KEPT_BYTES = 2**30

Encode = Callable[[Sequence[str | None], bool, torch.device], dict[str, Tensor]]
"""(texts, whether they are negative, device) -> arguments of the network, (n, ...) each.

None is the pipeline's own negative prompt, and comes alone.
"""


def is_held_out(text: str, share: float) -> bool:
    """Whether a text is among the ``share`` of all texts that a search does not see."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class EmbeddingCache:
    """Embeddings of texts: from memory, else from the folder, if there is one, else encoded."""

    def __init__(
        self, encode: Encode, fingerprint: str, folder: Path | None, kept_bytes: int = _KEPT_BYTES
    ) -> None:
        self._encode = encode
        self.fingerprint = fingerprint
        self._folder = folder
        self._room = kept_bytes
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def __call__(
        self, texts: Sequence[str | None], *, negative: bool, device: torch.device
    ) -> dict[str, Tensor]:
        """The embeddings of the texts, (n, ...) each, on the CPU."""
        keys = {text: self._key(text, negative) for text in texts}
        rows = {text: self._found(key) for text, key in keys.items()}
        missing = [text for text, row in rows.items() if row is None]
        if None in missing:
            rows.update(self._encoded([None], keys, negative, device))
        named = [text for text in missing if text is not None]
        if named:
            rows.update(self._encoded(named, keys, negative, device))
        ordered = [row for row in (rows[text] for text in texts) if row is not None]
        names = ordered[0]
        return {n: torch.stack(filled_up([row[n] for row in ordered], axis=0)) for n in names}

    def _encoded(
        self,
        texts: Sequence[str | None],
        keys: dict[str | None, str],
        negative: bool,
        device: torch.device,
    ) -> dict[str | None, dict[str, Tensor]]:
        found = {k: v.cpu().contiguous() for k, v in self._encode(texts, negative, device).items()}
        rows = {text: {k: v[i].clone() for k, v in found.items()} for i, text in enumerate(texts)}
        for text, row in rows.items():
            self._write(keys[text], row)
            self._keep(keys[text], row)
        return rows

    def _found(self, key: str) -> dict[str, Tensor] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if self._folder is None:
            return None
        try:
            row = load_file(_file_of(self._folder, key))
        except (OSError, SafetensorError):
            return None  # never written, or by a process that died
        self._keep(key, row)
        return row

    def _keep(self, key: str, row: dict[str, Tensor]) -> None:
        self._kept[key] = row
        self._room -= _bytes(row)
        while self._room < 0 and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._room += _bytes(oldest)

    def _write(self, key: str, row: dict[str, Tensor]) -> None:
        if self._folder is None:
            return
        path = _file_of(self._folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_suffix(f".{uuid4().hex}")  # another worker may write the same
        save_file(row, own)
        own.replace(path)

    def _key(self, text: str | None, negative: bool) -> str:
        content = json.dumps([self.fingerprint, negative, text])
        return hashlib.sha256(content.encode()).hexdigest()


def _file_of(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.safetensors"


class PromptNumbers:
    """Prompts by their numbers, split into those of a search and the held-out ones."""

    def __init__(self, prompts: Sequence[Prompt], share: float) -> None:
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise InvalidConfig(f"held_out: needs a share from 0 to below 1, found {share!r}")
        self._prompts = tuple(prompts)
        held_out = [i for i, own in enumerate(prompts) if is_held_out(own.text, share)]
        searched = sorted(set(range(len(prompts))) - set(held_out))
        if share and not (held_out and searched):
            raise InvalidConfig(
                f"held_out: of {len(prompts)} prompts a share of {share:g} leaves {len(searched)} "
                f"to the search and {len(held_out)} to validation; give more prompts, or set "
                "held_out = 0 to validate on those of the search"
            )
        self._sides = {False: torch.tensor(searched), True: torch.tensor(held_out or searched)}
        listed = [(own.text, own.negative) for own in prompts]
        self.content = json.dumps([listed, share])

    def drawn(self, n: int, generator: torch.Generator, *, held_out: bool) -> Tensor:
        """Numbers (n,), each as often as the others."""
        side = self._sides[held_out]
        return side[balanced(len(side), n, generator)]

    def prompts_of(self, numbers: Tensor) -> list[Prompt]:
        """The prompts of these numbers (n,)."""
        return [self._prompts[i] for i in numbers.tolist()]

    def texts(self, prompts: Tensor) -> list[str]:
        """The texts of these numbers (n,)."""
        return [own.text for own in self.prompts_of(prompts)]


class Prompts:
    """Prompts as conditions: an image's condition is the number of its prompt."""

    def __init__(
        self, prompts: Sequence[Prompt], share: float, cache: EmbeddingCache, *, guided: bool
    ) -> None:
        self._numbers = PromptNumbers(prompts, share)
        self._prompts = tuple(prompts)
        self._cache = cache
        self._guided = guided
        self._latest: dict[bool, tuple[list[int], torch.device, dict[str, Tensor]]] = {}
        listed = [(own.text, own.negative) for own in prompts]
        self.content = json.dumps([listed, share, cache.fingerprint])

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool, device: torch.device
    ) -> dict[str, Tensor]:
        """``prompts`` (n,), each as often as the others; their embeddings are made here."""
        drawn = self._numbers.drawn(n, generator, held_out=held_out)
        for negative in (False, True) if self._guided else (False,):
            self._embeddings(drawn.tolist(), negative, device)
        return {"prompts": drawn}

    def texts(self, prompts: Tensor) -> list[str]:
        """The prompts of these numbers (n,)."""
        return self._numbers.texts(prompts)

    def given(self, drawn: Given, *, negative: bool, device: torch.device) -> dict[str, Tensor]:
        """Embeddings, on ``device``; the latest are kept there for the next call."""
        numbers = drawn["prompts"].tolist()
        kept = self._latest.get(negative)
        if kept is None or kept[:2] != (numbers, device):
            found = self._embeddings(numbers, negative, device)
            with torch.inference_mode(False):  # the polish needs tensors that autograd takes
                kept = numbers, device, {k: v.to(device) for k, v in found.items()}
            self._latest[negative] = kept
        return kept[2]

    def _embeddings(
        self, numbers: Sequence[int], negative: bool, device: torch.device
    ) -> dict[str, Tensor]:
        own = [self._prompts[i] for i in numbers]
        texts = [p.negative if negative else p.text for p in own]
        with torch.inference_mode(False), torch.no_grad():
            return self._cache(texts, negative=negative, device=device)


def _bytes(row: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in row.values())
