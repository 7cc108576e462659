"""The pictures of a folder and its subfolders, in the order of their names."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.metrics.references.pictures import Preparation
from s3search.metrics.references.source import common_shape

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


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
        self._names = sorted(p.relative_to(folder).as_posix() for p in found)
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
            with Image.open(path) as picture:
                return self._preparation.of_picture(picture)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InvalidConfig(
                f"reference.path: {path} cannot be read as a picture ({error})"
            ) from error


def load(
    path: str,
    *,
    resize: int | None = None,
    channels: int = 3,
    statistics: str | None = None,
) -> FolderImages:
    """The reference ``folder``; ``statistics`` is what `s3search reference` wrote for it."""
    known = None if statistics is None else Path(statistics)
    return FolderImages(Path(path), Preparation(channels=channels, resize=resize), known)
