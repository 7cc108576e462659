"""Files of other projects, made here so that a lone clone has something to import."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

NO_CORRECTOR: dict[str, Any] = {
    "type": "no_corrector",
    "start_point": None,
    "taylor_order": None,
    "derivative_type": None,
}


def decisions(**changed: Any) -> dict[str, Any]:
    """USF's decisions for three steps: DDIM, a relaxed second order with a corrector, a third
    order.
    """
    first = {
        "estimate": "Difference_1",
        "active_points": [-2],
        "relaxation": "linear",
        "relaxation_coefficient": -0.25,
    }
    both = {"estimate": "Difference_2", "active_points": [-3, -2], "relaxation": None}
    corrected = {
        "type": "pseudo",
        "start_point": -2,
        "taylor_order": 2,
        "derivative_type": [
            {"estimate": "Difference_1", "active_points": [-1], "relaxation": None}
        ],
    }
    found: dict[str, Any] = {
        "timesteps": torch.tensor([1.0, 0.6, 0.25, 0.001]),
        "orders": [1, 2, 3],
        "prediction_types": ["noise_prediction", "data_prediction", "data_prediction"],
        "start_points": [-1, -1, -1],
        "derivative_types": [[], [first], [both, both]],
        "corrector_types": [corrected, NO_CORRECTOR, NO_CORRECTOR],
        "afs": "no_afs",
        "skip_coefficients": torch.ones(4),
    }
    return {**found, **changed}


def usf_file(folder: Path, *, score: float | None = None, **changed: Any) -> Path:
    """A decision file as the authors' code saves it, with its score if given."""
    path = folder / "decisions.pth"
    content: Any = decisions(**changed)
    torch.save(content if score is None else [content, np.float64(score)], path)
    return path


def text_file(folder: Path, text: str, name: str = "list.txt") -> str:
    """A text file's path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)
