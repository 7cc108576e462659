"""Writing files whole: through a neighbour and a rename, so that nobody reads half of one."""

from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``; what stood there before stays until all of it is written."""
    temporary = neighbour(path)
    temporary.write_bytes(content)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, as safely as `write_bytes`."""
    write_bytes(path, text.encode())


def neighbour(path: Path) -> Path:
    """The file beside ``path`` that it is written through."""
    return path.with_name(f".{path.name}.part")
