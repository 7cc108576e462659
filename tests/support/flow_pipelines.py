# ruff: noqa: PLC0415  # diffusers is imported where it is used, as in pipelines.py
"""Pipelines of flow transformers with tiny random weights, as `save_pretrained` writes them."""

from pathlib import Path
from typing import Any

import torch

from tests.support.pipelines import stirred, vae

_BYTES = 256
_PAD, _EOS = "<|endoftext|>", "<|im_end|>"
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def qwen_image(folder: Path) -> Path:
    """QwenImagePipeline: a dynamic shift that ends above zero."""
    from diffusers import (
        AutoencoderKLQwenImage,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    network = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    torch.manual_seed(1)
    autoencoder = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.2, 1.0],
    )
    text: dict[str, Any] = {
        "vocab_size": _BYTES + 4,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 1, "hidden_size": 8, "num_heads": 2, "out_hidden_size": 16}
    torch.manual_seed(2)
    encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config={**vision, "intermediate_size": 8})
    )
    QwenImagePipeline(
        transformer=stirred(network),
        vae=autoencoder.eval(),
        text_encoder=encoder.eval(),
        tokenizer=_byte_tokenizer(),
        scheduler=_dynamic(shift_terminal=0.02, max_shift=0.9, max_image_seq_len=8192),
    ).save_pretrained(folder)
    return folder


def z_image(folder: Path) -> Path:
    """ZImagePipeline."""
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    network = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[512, 32, 32],
    )
    torch.manual_seed(2)
    encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=_BYTES + 4,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    ZImagePipeline(
        transformer=stirred(network),
        vae=vae(shift_factor=0.1, scaling_factor=0.4),
        text_encoder=encoder.eval(),
        tokenizer=_byte_tokenizer(),
        scheduler=_static(3.0),
    ).save_pretrained(folder)
    return folder


def _static(shift: float) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=shift)


def _dynamic(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **options)


def _byte_tokenizer() -> Any:
    """Knows every byte, and how chats are written."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    letters = sorted(ByteLevel.alphabet())
    words = {letter: i for i, letter in enumerate(letters)}
    words[_PAD] = len(words)
    made = Qwen2Tokenizer(vocab=words, merges=[], model_max_length=512)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", _EOS]})
    made.chat_template = _CHAT
    return made
