"""BLIP's image tower and the text tower that looks at it, under the names of transformers.

Source: the authors' `vit.py` and `med.py` as ImageReward has them; transformers' Blip classes.
There the image tower's layer norms have epsilon 1e-6 and the text tower's 1e-12.
"""

import importlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from s3search.metrics.scores.weights import filled, renamed

VISION, TEXT = "visual_encoder.", "text_encoder."
_HEAD = 64  # channels of an attention head, in both towers
_NAMES = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.": "embeddings.patch_embedding.",
    "blocks.": "encoder.layers.",
    "norm.": "post_layernorm.",
}
_INSIDE = {".norm1.": ".layer_norm1.", ".norm2.": ".layer_norm2."}
_INSIDE |= {".attn.qkv.": ".self_attn.qkv.", ".attn.proj.": ".self_attn.projection."}


class Blip(nn.Module):
    """Pixels (B, 3, S, S), tokens and their mask (B, L) -> the first token's features (B, d)."""

    def __init__(self, vision: Any, text: Any) -> None:
        super().__init__()
        self.vision = vision
        self.text = text

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Features of the text where it has seen the image, (B, d)."""
        patches = self.vision(pixel_values=pixels).last_hidden_state
        seen = self.text(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones_like(patches[..., 0], dtype=torch.long),
        )
        found: Tensor = seen.last_hidden_state[:, 0]
        return found


def blip(state: Mapping[str, Tensor], *, field: str, source: str) -> Blip:
    """The two towers with the authors' weights, in float32; raises `InvalidConfig`.

    The sizes follow from the shapes.
    """
    transformers = importlib.import_module("transformers")
    vision_config = transformers.BlipVisionConfig(**_vision_sizes(state))
    text_config = transformers.BlipTextConfig(**_text_sizes(state))
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced
        vision = transformers.BlipVisionModel(vision_config)
        text = transformers.BlipTextModel(text_config, add_pooling_layer=False)
    filled(vision, dict(_vision(state)), field=field, source=source)
    filled(text, dict(_inside(state, TEXT)), field=field, source=source)
    return Blip(vision, text)


def side_of(state: Mapping[str, Tensor]) -> int:
    """Pixels a side of the images that the network sees."""
    n_patches = state[f"{VISION}pos_embed"].shape[1] - 1
    patch = state[f"{VISION}patch_embed.proj.weight"].shape[-1]
    return patch * math.isqrt(n_patches)


def _inside(state: Mapping[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), tensor.float()


def _vision(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in _inside(state, VISION):
        yield renamed(name, _NAMES, _INSIDE), tensor


def _vision_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = state[f"{VISION}cls_token"].shape[-1]
    return {
        "hidden_size": width,
        "intermediate_size": len(state[f"{VISION}blocks.0.mlp.fc1.weight"]),
        "num_hidden_layers": _n_blocks(state, f"{VISION}blocks."),
        "num_attention_heads": max(width // _HEAD, 1),
        "patch_size": state[f"{VISION}patch_embed.proj.weight"].shape[-1],
        "image_size": side_of(state),
        "layer_norm_eps": 1e-6,
    }


def _text_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    n_tokens, width = state[f"{TEXT}embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": n_tokens,
        "hidden_size": width,
        "encoder_hidden_size": state[f"{VISION}cls_token"].shape[-1],
        "intermediate_size": len(state[f"{TEXT}encoder.layer.0.intermediate.dense.weight"]),
        "num_hidden_layers": _n_blocks(state, f"{TEXT}encoder.layer."),
        "num_attention_heads": max(width // _HEAD, 1),
        "max_position_embeddings": len(state[f"{TEXT}embeddings.position_embeddings.weight"]),
        "layer_norm_eps": 1e-12,
    }


def _n_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    inside = (name for name in state if name.startswith(prefix))
    return len({name.removeprefix(prefix).partition(".")[0] for name in inside})
