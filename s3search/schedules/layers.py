"""Which blocks of the network a schedule leaves out, call by call, and what that saves.

`ModelPatch.skip_layers` has one list per step, for the call the step starts with; calls that no
step starts with (the first of an implicit corrector, the one of a last corrector) leave nothing
out.  A cost is counted in multiply-adds and told in NFE-equivalents: 1 is a call of the whole
network.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s3search.schedules.schedule import CorrectorKind, ModelPatch, Schedule, StartKind

Skipped = tuple[tuple[int, ...], ...]  # the blocks that each call, or each step's, leaves out


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A block that can be left out; it then hands its input on."""

    name: str  # in the denoiser
    kind: str  # the class
    shape: tuple[int, ...]  # of its largest input that it hands on, for a single image
    multiply_adds: int  # in one call
    inside: int | None  # the block around it


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The blocks of one network, numbered in the order of their calls, and its cost."""

    multiply_adds: int  # of one call, nothing left out
    layers: tuple[Layer, ...]

    def share(self, index: int) -> float:
        """The share of a call's multiply-adds."""
        return self.layers[index].multiply_adds / self.multiply_adds

    def outermost(self, skipped: Iterable[int]) -> tuple[int, ...]:
        """Those of ``skipped`` that lie in no other one, rising."""
        chosen = set(skipped)
        return tuple(sorted(i for i in chosen if chosen.isdisjoint(self._around(i))))

    def call_cost(self, skipped: Iterable[int]) -> float:
        """What a call without these blocks costs, in NFE-equivalents."""
        saved = sum(self.layers[i].multiply_adds for i in self.outermost(skipped))
        return 1.0 - saved / self.multiply_adds

    def cost(self, schedule: Schedule) -> float:
        """What all calls of a schedule cost, in NFE-equivalents."""
        return sum(self.call_cost(skipped) for skipped in skipped_by_call(schedule))

    def problem(self, schedule: Schedule) -> str | None:
        """Why a schedule cannot leave out what it names."""
        n, lists = len(self.layers), lists_of(schedule)
        called = dict.fromkeys(starting_steps(schedule))
        for i, skipped in enumerate(lists):
            path = f"model_patch.skip_layers[{i}]"
            if skipped and i not in called:
                return f"{path}: step {i} starts without a network call; empty the list"
            wrong = [layer for layer in skipped if layer >= n]
            if wrong:
                found = f"has blocks 0 to {n - 1}" if n else "has no block that can be left out"
                return (
                    f"{path}: there is no block {wrong[0]}, this network {found}; "
                    "`s3search tools inspect-model` lists them"
                )
        return None

    def _around(self, index: int) -> list[int]:
        """The blocks that a block lies in."""
        found, at = list[int](), self.layers[index].inside
        while at is not None:
            found.append(at)
            at = self.layers[at].inside
        return found


def starting_steps(schedule: Schedule) -> tuple[int, ...]:
    """The steps that start with a network call."""
    first = 0 if schedule.start.kind is StartKind.NETWORK else 1
    return tuple(range(first, schedule.n_steps))


def skipped_by_call(schedule: Schedule) -> Skipped:
    """What each network call leaves out, in the order of the calls."""
    lists, calls = lists_of(schedule), list[tuple[int, ...]]()
    called = starting_steps(schedule)
    for i, step in enumerate(schedule.steps):
        if i in called:
            calls.append(lists[i])
        corrector, is_last = step.corrector, i == schedule.n_steps - 1
        if corrector is not None and (corrector.kind is CorrectorKind.IMPLICIT or is_last):
            calls.append(())
    return tuple(calls)


def with_skipped(schedule: Schedule, skipped: Sequence[Sequence[int]]) -> Schedule:
    """``schedule`` that leaves ``skipped[i]`` out of the call step i starts with; one without
    such a patch where there is nothing to leave out.
    """
    if not any(skipped) and not skips_layers(schedule):
        return schedule
    lists = [sorted(set(own)) for own in skipped]
    patch = (schedule.model_patch or ModelPatch()).model_dump()
    patch["skip_layers"] = lists if any(lists) else None
    used = any(value is not None for value in patch.values())
    return schedule.changed(model_patch=patch if used else None)


def whole(schedule: Schedule) -> Schedule:
    """``schedule`` that leaves nothing out."""
    return with_skipped(schedule, [()] * schedule.n_steps)


def skips_layers(schedule: Schedule) -> bool:
    """Whether any call leaves a block out."""
    return any(lists_of(schedule))


def lists_of(schedule: Schedule) -> Skipped:
    """The blocks that the call of each step leaves out."""
    patch = schedule.model_patch
    lists = None if patch is None else patch.skip_layers
    return ((),) * schedule.n_steps if lists is None else lists
