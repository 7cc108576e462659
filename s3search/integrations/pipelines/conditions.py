"""What images are conditioned on, as arguments of a pipeline's call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.models.diffusers.captions import read_prompts
from s3search.models.diffusers.conditions import Classes
from s3search.models.diffusers.prompts import PromptNumbers


class ArgumentSource(Protocol):
    """Draws conditions, and says what of them the pipeline's call is given."""

    content: str  # what must be the same for two measurements to be comparable
    texts: Callable[..., list[str]] | None  # from conditions to what images were asked for by

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool
    ) -> dict[str, Tensor]:
        """Conditions of ``n`` images, (n,) each."""

    def given(self, drawn: Mapping[str, Tensor], n: int) -> dict[str, Any]:
        """Arguments of the call for ``n`` images."""


class PromptArguments:
    """A prompt for each image."""

    def __init__(
        self, prompts: str | Sequence[str], held_out: float, known: Sequence[str]
    ) -> None:
        self._numbers = PromptNumbers(read_prompts(prompts), held_out)
        self._takes_negative = "negative_prompt" in known
        self.content = self._numbers.content
        self.texts: Callable[..., list[str]] | None = self._numbers.texts

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool
    ) -> dict[str, Tensor]:
        """Each prompt as often as the others: ``prompts`` (n,)."""
        return {"prompts": self._numbers.drawn(n, generator, held_out=held_out)}

    def given(self, drawn: Mapping[str, Tensor], n: int) -> dict[str, Any]:
        """``prompt``, and ``negative_prompt`` where one of them has its own."""
        own = self._numbers.prompts_of(drawn["prompts"])
        found: dict[str, Any] = {"prompt": [each.text for each in own]}
        if self._takes_negative and any(each.negative is not None for each in own):
            found["negative_prompt"] = [each.negative or "" for each in own]
        return found


class ClassArguments:
    """A class for each image."""

    texts: Callable[..., list[str]] | None = None

    def __init__(self, classes: Sequence[int]) -> None:
        whole = [each for each in classes if isinstance(each, int) and each >= 0]
        if not whole or len(whole) != len(classes):
            raise InvalidConfig(f"classes: needs whole numbers from 0 on, found {classes!r}")
        self._classes = Classes(whole, max(whole) + 1)
        self.content = self._classes.content

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool
    ) -> dict[str, Tensor]:
        """Balanced classes: ``labels`` (n,)."""
        device = torch.device("cpu")
        return self._classes.condition(n, generator, held_out=held_out, device=device)

    def given(self, drawn: Mapping[str, Tensor], n: int) -> dict[str, Any]:
        """``class_labels``."""
        return {"class_labels": drawn["labels"].tolist()}


class NoArguments:
    """All images are made alike but for their noise."""

    content = ""
    texts: Callable[..., list[str]] | None = None

    def __init__(self, known: Sequence[str]) -> None:
        self._says_how_many = "batch_size" in known

    def condition(
        self, n: int, generator: torch.Generator, *, held_out: bool
    ) -> dict[str, Tensor]:
        """Draws no condition."""
        return {}

    def given(self, drawn: Mapping[str, Tensor], n: int) -> dict[str, Any]:
        """How many images, where the call asks for it."""
        return {"batch_size": n} if self._says_how_many else {}
