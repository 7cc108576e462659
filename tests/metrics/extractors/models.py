"""Tiny DINOv2 and CLIP models with random weights, saved as the published ones are."""

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

WORDS = ("a", "b", "digit", "of", "zero")


def save_dinov2(folder: Path, seed: int = 0) -> Path:
    """A Dinov2Model of width 16 with patches of 14 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Dinov2Model(
            Dinov2Config(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=28,
                patch_size=14,
            )
        )
    model.save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIPModel for images of 28 pixels, with a tokenizer of few words."""
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *(f"{w}</w>" for w in WORDS)]
    letters = sorted({c for w in WORDS for c in w})
    vocabulary += [*letters, *(f"{c}</w>" for c in letters), "di"]
    numbers = {word: k for k, word in enumerate(dict.fromkeys(vocabulary))}
    text = tower | {
        "vocab_size": len(numbers),
        "max_position_embeddings": 12,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = tower | {"image_size": 28, "patch_size": 14}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("#version: 0.2\nd i\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    return folder
