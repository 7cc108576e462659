"""Weights of OpenCLIP under the names that transformers gives them.

    visual.conv1, class_embedding, positional_embedding    embeddings of the image tower
    visual.transformer.resblocks.i.attn.in_proj_*          query, key and value of layer i, stacked
    visual.proj, text_projection                           x W there, W^T x in transformers
    the same without ``visual.``                           the text tower

The sizes of the network follow from the shapes; only the width of a head is not written in
them.  Activations are exact GELU, as in OpenCLIP's own models (OpenAI's have a quick one).

Source: the names of open_clip 2.x, `model.py`, and of transformers' CLIPModel.
"""

import importlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.metrics.scores.weights import filled, renamed

_VISION_HEAD, _TEXT_HEAD = 80, 64  # of ViT-H/14
_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_PARTS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",  # spelt so in transformers
    "visual.ln_post.": "vision_model.post_layernorm.",
    "ln_final.": "text_model.final_layer_norm.",
}
_INSIDE = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
}
_TRANSPOSED = ("visual.proj", "text_projection")
_STACKED = re.compile(r"(.*\.)attn\.in_proj_(weight|bias)")


def clip_model(state: Mapping[str, Tensor], eos: int, *, field: str, source: str) -> Any:
    """A transformers CLIPModel in float32 with OpenCLIP's weights; ``eos`` is the token at which
    a text ends.  Raises `InvalidConfig`.
    """
    lacking = sorted(set(_NAMES) - set(state))
    if lacking:
        raise InvalidConfig(
            f"{field}: {source} is no checkpoint of OpenCLIP: {lacking[0]} is missing; give the "
            "file that docs/scores.md names, or a folder that CLIPModel.save_pretrained wrote"
        )
    transformers = importlib.import_module("transformers")
    config = transformers.CLIPConfig(**_sizes(state, eos))
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced
        model = transformers.CLIPModel(config)
    return filled(model, dict(of_transformers(state)), field=field, source=source)


def of_transformers(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names of transformers, with the weights in float32."""
    for name, tensor in state.items():
        value = tensor.float()
        if name in _NAMES:
            yield _NAMES[name], value.T.contiguous() if name in _TRANSPOSED else value
        elif (stacked := _STACKED.fullmatch(name)) is not None:
            block = renamed(stacked[1], _PARTS, {})
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                yield f"{block}self_attn.{letter}_proj.{stacked[2]}", part.contiguous()
        else:
            yield renamed(name, _PARTS, _INSIDE), value


def _sizes(state: Mapping[str, Tensor], eos: int) -> dict[str, Any]:
    patches, width = state["visual.positional_embedding"].shape
    patch = state["visual.conv1.weight"].shape[-1]
    n_tokens, text_width = state["token_embedding.weight"].shape
    vision = _tower(state, "visual.transformer.resblocks", width, _VISION_HEAD)
    vision |= {"patch_size": patch, "image_size": patch * math.isqrt(patches - 1)}
    text = _tower(state, "transformer.resblocks", text_width, _TEXT_HEAD)
    text |= {
        "vocab_size": n_tokens,
        "max_position_embeddings": len(state["positional_embedding"]),
        "eos_token_id": eos,
    }
    n_features = state["text_projection"].shape[1]
    return {"text_config": text, "vision_config": vision, "projection_dim": n_features}


def _tower(state: Mapping[str, Tensor], blocks: str, width: int, head: int) -> dict[str, Any]:
    inside = [name for name in state if name.startswith(f"{blocks}.")]
    n_layers = len({name.removeprefix(f"{blocks}.").partition(".")[0] for name in inside})
    hidden = state.get(f"{blocks}.0.mlp.c_fc.weight", torch.empty(4 * width, width))
    return {
        "hidden_size": width,
        "intermediate_size": len(hidden),
        "num_hidden_layers": n_layers,
        "num_attention_heads": max(width // head, 1),
        "hidden_act": "gelu",
    }
