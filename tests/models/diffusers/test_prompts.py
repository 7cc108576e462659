"""Prompts: read, split by their own text, drawn evenly; embeddings computed once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.diffusers.captions import Prompt
from s3search.models.diffusers.prompts import EmbeddingCache, Prompts, is_held_out

CPU = torch.device("cpu")
MANY = tuple(Prompt(text=f"a picture of {i}") for i in range(200))


class _Encoder:
    """Embeds a text as its length, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, bool]] = []

    def __call__(
        self, texts: Sequence[str | None], negative: bool, device: torch.device
    ) -> dict[str, Tensor]:
        self.asked += [(text, negative) for text in texts]
        lengths = torch.tensor([-1.0 if text is None else len(text) for text in texts])
        return {"text": lengths[:, None] * (-1 if negative else 1)}


def _prompts(
    folder: Path, own: Sequence[Prompt] = MANY, share: float = 0.2, *, guided: bool = False
) -> Prompts:
    return Prompts(own, share, EmbeddingCache(_Encoder(), "f", folder), guided=guided)


def _drawn(prompts: Prompts, n: int, *, held_out: bool = False, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    found = prompts.condition(n, generator, held_out=held_out, device=CPU)
    return [int(i) for i in found["prompts"]]


def test_the_split_does_not_move_when_prompts_are_added(tmp_path: Path) -> None:
    few, many = _prompts(tmp_path, MANY[:100]), _prompts(tmp_path)
    for held_out in (False, True):
        before = set(_drawn(few, 100, held_out=held_out))
        after = set(_drawn(many, 200, held_out=held_out))
        assert before == {i for i in after if i < 100}
    assert not set(_drawn(many, 200)) & set(_drawn(many, 200, held_out=True))
    share = sum(is_held_out(own.text, 0.2) for own in MANY) / len(MANY)
    assert 0.1 < share < 0.3
    assert sum(is_held_out(own.text, 0.4) for own in MANY) > share * len(MANY)


def test_prompts_are_drawn_evenly_and_by_the_generator_alone(tmp_path: Path) -> None:
    prompts = _prompts(tmp_path, MANY[:7], share=0)
    drawn = _drawn(prompts, 20)
    assert {drawn.count(i) for i in range(7)} == {2, 3}
    assert drawn == _drawn(prompts, 20)
    assert drawn != _drawn(prompts, 20, seed=1)
    assert set(_drawn(prompts, 20, held_out=True)) == set(range(7))


def test_a_split_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"of 1 prompts .* set held_out = 0"):
        _prompts(tmp_path, MANY[:1])
    with pytest.raises(InvalidConfig, match=r"held_out: needs a share .* found 1\.5"):
        _prompts(tmp_path, share=1.5)


def test_embeddings_are_computed_once_and_found_again_in_the_folder(tmp_path: Path) -> None:
    encoder = _Encoder()
    cache = EmbeddingCache(encoder, "weights a", tmp_path)
    found = cache(["ab", "c", "ab"], negative=False, device=CPU)
    assert found["text"].tolist() == [[2.0], [1.0], [2.0]]
    cache(["c"], negative=False, device=CPU)
    assert encoder.asked == [("ab", False), ("c", False)]
    assert cache(["ab"], negative=True, device=CPU)["text"].tolist() == [[-2.0]]
    later = _Encoder()
    again = EmbeddingCache(later, "weights a", tmp_path)
    assert again(["c", "ab"], negative=False, device=CPU)["text"].tolist() == [[1.0], [2.0]]
    assert later.asked == []
    EmbeddingCache(later, "weights b", tmp_path)(["c"], negative=False, device=CPU)
    assert later.asked == [("c", False)]


def test_a_half_written_file_is_made_again_and_little_memory_is_enough(tmp_path: Path) -> None:
    encoder = _Encoder()
    cache = EmbeddingCache(encoder, "f", tmp_path, kept_bytes=8)  # two embeddings
    texts = ["a", "bb", "ccc", "dddd"]
    for _ in range(2):
        found = cache(texts, negative=False, device=CPU)
        assert found["text"].flatten().tolist() == [1.0, 2.0, 3.0, 4.0]
    assert len(encoder.asked) == 4
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    fresh = EmbeddingCache(encoder, "f", tmp_path)
    assert fresh(texts, negative=False, device=CPU)["text"].flatten().tolist() == [1, 2, 3, 4]
    assert len(encoder.asked) == 8


def test_the_pipelines_own_negative_prompt_is_encoded_alone(tmp_path: Path) -> None:
    encoder = _Encoder()
    own = [Prompt(text="a", negative="bad"), Prompt(text="bb")]
    prompts = Prompts(own, 0, EmbeddingCache(encoder, "f", tmp_path), guided=True)
    drawn = {"prompts": torch.tensor([0, 1, 1])}
    assert prompts.given(drawn, negative=True, device=CPU)["text"].tolist() == [[-3], [1], [1]]
    assert prompts.given(drawn, negative=False, device=CPU)["text"].tolist() == [[1], [2], [2]]
    assert sorted(encoder.asked, key=str) == sorted(
        [(None, True), ("bad", True), ("a", False), ("bb", False)], key=str
    )


def test_embeddings_can_take_part_in_a_gradient(tmp_path: Path) -> None:
    prompts = _prompts(tmp_path, MANY[:2], share=0)
    with torch.inference_mode():
        found = prompts.given({"prompts": torch.tensor([0])}, negative=False, device=CPU)
    assert not found["text"].is_inference()
