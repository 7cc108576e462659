"""What images are conditioned on: nothing, or a class.  Prompts are in prompts.py."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from s3search.errors import InvalidConfig

Given = Mapping[str, Tensor]  # what the network is told of each image, (B, ...) by argument name


class Source(Protocol):
    """Draws conditions, which travel as small tensors, and turns them into network arguments."""

    @property
    def content(self) -> str:
        """What must be the same for two measurements to be comparable."""

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool, device: torch.device
    ) -> dict[str, Tensor]:
        """Conditions of ``n`` images, (n,) each."""

    def given(self, drawn: Given, *, negative: bool, device: torch.device) -> dict[str, Tensor]:
        """The arguments for drawn conditions, or for the null conditions beside them."""


class Nothing:
    """The source of an unconditional network, which has no condition."""

    content = ""

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool, device: torch.device
    ) -> dict[str, Tensor]:
        """Draws no condition at all."""
        return {}

    def given(self, drawn: Given, *, negative: bool, device: torch.device) -> dict[str, Tensor]:
        """No arguments for the network."""
        return {}


class Classes:
    """Every class equally often, which no two noise seeds do differently."""

    def __init__(self, classes: Sequence[int] | None, n_classes: int) -> None:
        own = range(n_classes) if classes is None else classes
        wrong = [c for c in own if not isinstance(c, int) or not 0 <= c < n_classes]
        if wrong or not own:
            raise InvalidConfig(
                f"classes: the model has the classes 0 to {n_classes - 1}, found {wrong or own}"
            )
        self._classes = torch.tensor(list(own))
        self._null = n_classes  # the last row of the table, which label dropout trains
        self.content = str(list(own))

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool, device: torch.device
    ) -> dict[str, Tensor]:
        """Balanced classes for n images: ``labels`` (n,)."""
        return {"labels": self._classes[balanced(len(self._classes), n, generator)]}

    def given(self, drawn: Given, *, negative: bool, device: torch.device) -> dict[str, Tensor]:
        """What the network takes: ``class_labels`` (n,), of the null class if ``negative``."""
        labels = drawn["labels"].to(device)
        return {"class_labels": torch.full_like(labels, self._null) if negative else labels}


def filled_up(rows: Sequence[Tensor], axis: int) -> list[Tensor]:
    """Tensors with zeros behind along ``axis`` up to the longest: texts of several lengths."""
    if any(row.ndim <= axis for row in rows):
        return [*rows]
    most = max(row.shape[axis] for row in rows)
    missing = [most - row.shape[axis] for row in rows]
    return [
        torch.cat([row, row.new_zeros((*row.shape[:axis], own, *row.shape[axis + 1 :]))], axis)
        if own
        else row
        for row, own in zip(rows, missing, strict=True)
    ]


def balanced(n_choices: int, n: int, generator: torch.Generator) -> Tensor:  # (n,)
    """``n`` of the numbers below ``n_choices`` in random order, each as often as the others (to
    one).
    """
    rounds = [torch.randperm(n_choices, generator=generator) for _ in range(-(-n // n_choices))]
    return torch.cat(rounds)[:n]
