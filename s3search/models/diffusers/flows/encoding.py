"""From texts to the arguments of a flow's network."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from s3search.models.diffusers.flows.entry import Encoding

MASK = "{}_mask"  # of texts that come as a list


def encode(
    encoding: Encoding,
    pipe: Any,
    texts: Sequence[str | None],
    negative: bool,
    device: torch.device,
) -> dict[str, Tensor]:
    """What the pipeline's `encode_prompt` makes of texts, (n, ...) by argument of the network."""
    said = [encoding.empty if text is None else text for text in texts]
    given = dict(encoding.arguments)
    if not negative:
        usual = inspect.signature(type(pipe).__call__).parameters
        given |= {name: usual[name].default for name in encoding.of_prompts}
    answer = pipe.encode_prompt(prompt=said, device=device, **given)
    found: dict[str, Tensor] = {}
    for place, name in encoding.returns.items():
        value = answer[place]
        if isinstance(value, list):
            found[name] = pad_sequence(value, batch_first=True)
            ones = [row.new_ones(len(row), dtype=torch.bool) for row in value]
            found[MASK.format(name)] = pad_sequence(ones, batch_first=True)
        elif value is None:  # a mask that leaves nothing out
            first = next(iter(found.values()))
            found[name] = torch.ones(first.shape[:2], dtype=torch.long, device=first.device)
        else:
            found[name] = value
    return found


def ragged(given: dict[str, Tensor]) -> dict[str, Any]:
    """Texts that came as a list as a list again, without what filled them up."""
    masks = {name for name in given if MASK.format(name) in given}
    rest = {k: v for k, v in given.items() if k not in {MASK.format(name) for name in masks}}
    lists = {
        name: [row[own] for row, own in zip(given[name], given[MASK.format(name)], strict=True)]
        for name in masks
    }
    return {**rest, **lists}
