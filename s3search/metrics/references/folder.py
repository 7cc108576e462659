"""The pictures of a folder and its subfolders, in the order of their names.

Hidden files and folders (``._0.png``, ``.thumbnails``, macOS' ``__MACOSX``) hold none of the
data.
"""

import hashlib
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.metrics.references.pictures import FORMATS, Preparation, open_picture
from s3search.metrics.references.source import common_shape

SUFFIXES = tuple(FORMATS)


class FolderImages:
    """An image source that decodes on demand.

    The digest is of names, sizes in bytes and preparation, so that it costs no reading.
    """

    def __init__(
        self, folder: Path, preparation: Preparation, statistics: Path | None = None
    ) -> None:
        if not folder.is_dir():
            raise InvalidConfig(f"reference.path: {folder} is not a folder of pictures")
        found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        own = (p.relative_to(folder) for p in found)
        self._names = sorted(p.as_posix() for p in own if not _is_hidden(p))
        if len(self._names) < 2:
            raise InvalidConfig(
                f"reference.path: {folder} holds {len(self._names)} pictures "
                f"({', '.join(SUFFIXES)}), a reference needs at least 2"
            )
        self._folder = folder
        self._preparation = preparation
        self.statistics = statistics

    @property
    def n(self) -> int:
        """How many pictures there are."""
        return len(self._names)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits."""
        digest = hashlib.sha256(repr(self._preparation).encode())
        for name in self._names:
            digest.update(f"\n{name} {(self._folder / name).stat().st_size}".encode())
        return digest.hexdigest()[:16]

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Those pictures, (len(numbers), C, H, W) float32 in [-1, 1]."""
        names = [self._names[i] for i in numbers]
        return common_shape([self._image(n) for n in names], names, self._preparation.resize)

    def _image(self, name: str) -> Tensor:
        path = self._folder / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is beside the pixels
                with open_picture(path) as picture:
                    return self._preparation.of_picture(picture)
        except InvalidConfig as error:
            raise InvalidConfig(f"reference.path: {path} has {error}") from error
        except Exception as error:  # Pillow raises anything for a damaged picture
            raise InvalidConfig(
                f"reference.path: {path} cannot be read as a picture in the format that its "
                f"suffix says ({error})"
            ) from error


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def load(
    path: str,
    *,
    resize: int | None = None,
    channels: int = 3,
    statistics: str | None = None,
) -> FolderImages:
    """The reference ``folder``; ``statistics`` is what `s3search tools reference` wrote for it."""
    known = None if statistics is None else Path(statistics)
    return FolderImages(Path(path), Preparation(channels=channels, resize=resize), known)
