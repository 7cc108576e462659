"""Files of weights for the tests: those of scores, with random numbers in them."""

import json
from pathlib import Path

import torch
from torch import Tensor

from tests.metrics.scores.inputs import convolutions, drawn

MEASURED = Path(__file__).parents[2] / "golden" / "scores" / "measured"
WIDTHS = {"0": (1024, None), "2": (128, 1024), "4": (64, 128), "6": (16, 64), "7": (1, 16)}


def save_backbone(folder: Path, network: str) -> Path:
    """A file as torchvision's of ``vgg`` or ``alex``, its classifier left out but for a trace."""
    state = {name: tensor.float() for name, tensor in drawn(convolutions(network)).items()}
    state["classifier.6.bias"] = torch.zeros(10)
    torch.save(state, folder / f"{network}.pth")
    return folder / f"{network}.pth"


def regression_state(width: int, seed: int = 0) -> dict[str, Tensor]:
    """Weights of the five linear layers behind features of that width."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (outputs, inputs) in WIDTHS.items():
        shapes[f"layers.{place}.weight"] = (outputs, inputs or width)
        shapes[f"layers.{place}.bias"] = (outputs,)
    return {name: tensor.float() for name, tensor in drawn(shapes, seed).items()}


def save_bert_tokens(folder: Path, n: int) -> Path:
    """A BERT tokenizer that knows ``n`` words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "digit", "zero"]
    words += [f"word{k}" for k in range(n - len(words))]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
