"""Which code a process runs, so that a driver and its workers can be held to the same.

Numbers of one study must come from one code. A release number does not tell two checkouts apart,
so the source files are hashed too. Of torch the build ("+cpu", "+cu126") may differ: a head
without a GPU is usual. Packages of plug-ins are not looked at.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

from s3search.evaluation.code_version import CODE_VERSION

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVersion:
    """The release of s3search, twelve digits of the hash of its source files, and torch's release
    without its build.
    """

    s3search: str
    sources: str
    torch: str

    @classmethod
    def of_this_process(cls) -> Self:
        """What is installed here; reads the package's source files (about 10 ms)."""
        return cls(
            s3search=CODE_VERSION,
            sources=source_digest(_PACKAGE),
            torch=version("torch").partition("+")[0],
        )

    def __str__(self) -> str:
        return f"s3search {self.s3search} (sources {self.sources}) with torch {self.torch}"


def source_digest(package: Path) -> str:
    """Twelve hexadecimal digits that any change to a Python file under ``package`` changes."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).parts):
        content = path.read_bytes()
        name = path.relative_to(package).as_posix()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def mismatch(driver: CodeVersion, worker: CodeVersion, worker_name: str) -> str | None:
    """The sentence that refuses a worker of other code than its driver's; None if it is the same.

    ``worker_name`` is ``"<host>/<pid>"``.
    """
    if driver == worker:
        return None
    node = worker_name.partition("/")[0]
    return (
        f"node {node} runs {worker}, the driver runs {driver}; install the driver's versions on "
        "every node, restart Ray there, then run the same command to resume"
    )
