"""Fine solves of noises in files, so that a worker that starts again need not make them again.

A solve of a block takes dozens of network calls for each of its images, far more than any schedule
of a search, and depends on nothing but the model and the noise.  So it is kept in s3search's cache
folder (`s3search.files.cache_folder`) under a digest of all that it is made of: the model's
fingerprint, the noise itself (which the seed and the block say), the conditions and captions, the
solver and its calls.

A fingerprint says nothing of the model's code, so a file also has the network's answer to a probe:
where the present network answers otherwise, the file is another model's, and is made anew.

Files are written whole and renamed, so two processes may write one at once, and either's stays.
Where they come to more than ``max_bytes``, those that were read the longest ago go.
"""

import hashlib
import io
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3search.evaluation.fine import FineSolver
from s3search.evaluation.fingerprints import content_digest
from s3search.evaluation.noise import NoiseBank
from s3search.files import arrays_in, cache_folder, write_bytes

MOST_BYTES = 2**32
"""That all files of a folder take, where its disk has not much more room."""

_SHARE_OF_FREE = 1 / 10  # of a disk with much room: 50,000 large images take tens of GB

_PROBES, _PROBE_SEED = 2, 0
_ALIKE = 1e-3  # of its norm, an answer to the probe may differ between machines
_IMAGES, _ANSWER = "images", "answer"

Condition = dict[str, Tensor]


@dataclass
class KeptSolves:
    """A fine solver that reads what it, or another process, has solved before."""

    solver: FineSolver
    folder: Path
    model: str  # its fingerprint
    probe: Callable[[], Tensor]  # what the network answers to inputs that are always alike
    captions: Callable[..., Sequence[str]] | None = None  # of a model with prompts
    max_bytes: int = MOST_BYTES
    _cannot_write: bool = field(default=False, init=False)

    @property
    def n_solved(self) -> int:
        """Images that were solved here, and not read."""
        return self.solver.n_solved

    def __call__(self, noise: Tensor, condition: Condition) -> Tensor:
        """The fine solve (b, ...) of noise and conditions."""
        path = self.folder / f"{self._key(noise, condition)}.npz"
        kept = self._read(path, noise)
        if kept is not None:
            return kept
        made = self.solver(noise, condition)
        made = made if made.dtype is torch.float64 else made.float()  # as files have them
        self._write(path, made)
        return made

    @cached_property
    def _answer(self) -> np.ndarray:
        found: np.ndarray = self.probe().detach().float().cpu().numpy()
        return found

    def _key(self, noise: Tensor, condition: Condition) -> str:
        said = {name: content_digest(value) for name, value in sorted(condition.items())}
        captions = None if self.captions is None else list(self.captions(**condition))
        parts = (self.model, self.solver.name, content_digest(noise), noise.device.type)
        return hashlib.sha256(repr((*parts, said, captions)).encode()).hexdigest()[:32]

    def _read(self, path: Path, noise: Tensor) -> Tensor | None:
        """What the file holds; None where there is none, or one that is damaged or another's."""
        if not path.is_file():
            return None
        try:
            content = arrays_in(path)
            images, answer = content[_IMAGES], content[_ANSWER]
        except FileNotFoundError:  # another process dropped it just now
            return None
        except (OSError, ValueError, KeyError) as error:
            warnings.warn(
                f"{path}: a fine solve is kept there and cannot be read ({error}); it is made "
                "again",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        if len(images) != len(noise) or not _are_alike(answer, self._answer):
            return None
        with suppress(OSError):
            os.utime(path)  # those that nobody reads go first
        return torch.from_numpy(images).to(noise.device)

    def _write(self, path: Path, made: Tensor) -> None:
        """Keeps the images; says once where that cannot be done, which costs time alone."""
        if self._cannot_write or not made.isfinite().all():
            return
        content = io.BytesIO()
        np.savez(content, images=made.cpu().numpy(), answer=self._answer)
        if content.tell() > self.max_bytes:
            return
        own = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.part")  # no other process's
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(own, content.getvalue())
            own.replace(path)
            self._drop_old()
        except OSError as error:
            self._cannot_write = True
            warnings.warn(
                f"{self.folder}: fine solves cannot be kept there ({error}), so that a worker "
                "that starts again makes them again; set S3SEARCH_CACHE to a folder that can be "
                "written",
                RuntimeWarning,
                stacklevel=2,
            )

    def _drop_old(self) -> None:
        found = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process drops them too
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def room_in(folder: Path) -> int:
    """Bytes that the files of a folder may take: `MOST_BYTES`, or a tenth of what is free there;
    the folder need not be there yet.
    """
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return max(MOST_BYTES, int(shutil.disk_usage(there).free * _SHARE_OF_FREE))


def kept_solves(denoiser: Any, device: torch.device, model: str, batch_size: int) -> KeptSolves:
    """The solves of a denoiser in the folder where they are usually kept; ``model`` is its
    fingerprint.
    """
    folder = cache_folder() / "solves"
    return KeptSolves(
        solver=FineSolver(denoiser, batch_size),
        folder=folder,
        max_bytes=room_in(folder),
        model=model,
        probe=lambda: probed(denoiser, NoiseBank(denoiser, device)),
        captions=getattr(denoiser, "captions", None),
    )


@torch.inference_mode()
def probed(denoiser: Any, noise: NoiseBank) -> Tensor:
    """What a network answers to the first two images of a fixed noise, halfway to the clean ones:
    by this a network is told from one whose code is another.
    """
    (x, condition) = next(noise.batches(_PROBE_SEED, _PROBES, _PROBES))
    t = x.new_full((len(x),), denoiser.process.time_of_lam(0.0))
    found: Tensor = denoiser(x, t, **condition)
    return found


def _are_alike(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.linalg.norm(one - other) <= _ALIKE * np.linalg.norm(other))
