"""What makes the embedding of a prompt, and who makes it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def text_encoders(pipe: Any) -> list[nn.Module]:
    """The text encoders of a pipeline, in the order of their names."""
    found = sorted(pipe.components.items())
    return [part for name, part in found if name.startswith("text_encoder") and part is not None]


def text_fingerprint(pipe: Any) -> str:
    """Hash of the pipeline's kind, its tokenizers and its text encoders' weights."""
    digest = hashlib.sha256(type(pipe).__name__.encode())
    for name, part in sorted(pipe.components.items()):
        if name.startswith("tokenizer") and part is not None:
            words = json.dumps(sorted(part.get_vocab().items()))
            digest.update(f"{name}{part.model_max_length}{words}".encode())
    for encoder in text_encoders(pipe):
        digest.update(type(encoder).__name__.encode())
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(f"{name}{tensor.dtype}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
    return digest.hexdigest()


@contextmanager
def on_device(pipe: Any, device: torch.device) -> Iterator[None]:
    """The text encoders are on ``device`` and in evaluation mode as long as prompts are encoded,
    then where and as they were.
    """
    found = [(own, own.training, next(own.parameters()).device) for own in text_encoders(pipe)]
    try:
        for encoder, _, _ in found:
            encoder.to(device).eval()
        yield
    finally:
        for encoder, training, place in found:
            encoder.to(place).train(training)
