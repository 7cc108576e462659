"""A running study without a search: one that is finished, set back and told again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from s3search.study.database.engine import connect_arguments
from s3search.study.database.tables import EVALUATIONS, JOBS, STUDIES
from s3search.study.file.config import StudyConfig


class Rewound:
    """A finished study that is set back to its beginning, and goes on a result at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = sa.create_engine(url, **connect_arguments(url))
        with self._engine.begin() as connection:
            connection.execute(STUDIES.update().values(state="searching"))
            rows = connection.execute(sa.select(EVALUATIONS).order_by(EVALUATIONS.c.id))
            self._rows = [dict(row) for row in rows.mappings()]
            connection.execute(EVALUATIONS.delete())
            connection.execute(JOBS.delete())

    def goes_on(self, n: int) -> None:
        """So many results more."""
        with self._engine.begin() as connection:
            connection.execute(EVALUATIONS.insert(), self._rows[:n])
        del self._rows[:n]

    def ends(self) -> None:
        """With all results."""
        self.goes_on(len(self._rows))
        with self._engine.begin() as connection:
            connection.execute(STUDIES.update().values(state="done"))

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()


@contextmanager
def rewound(finished: StudyConfig, folder: Path) -> Iterator[Rewound]:
    """A copy of a finished study in a folder, set back."""
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), folder / "study.db")
    found = Rewound(f"sqlite:///{folder / 'study.db'}")
    try:
        yield found
    finally:
        found.close()
