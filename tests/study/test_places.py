"""Databases in awkward places: behind URLs with secrets, in odd folders, where nobody writes."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3search.errors import InvalidConfig
from s3search.show.dashboard.storage import open_storage
from s3search.study.database import engine as opening
from s3search.study.database.engine import open_engine, redacted, schema_of
from s3search.study.database.store import open_study, study_names
from s3search.study.file.config import StudyConfig
from s3search.study.results.export import best_schedule
from tests.support.studies import EVIL_NAME

_NOBODY = 65534


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:first@tail@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann:fi/r?st#@tail@host:1/db", "postgresql://ann:***@host:1/db"),
        ("postgresql://h/x?a=b&PassWord=se@c&ret&c=d", "postgresql://h/x?a=b&PassWord=hidden&c=d"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        ("'mysql://me:secret@h/x'", "'mysql://me:***@h/x'"),
    ],
)
def test_a_secret_is_hidden_before_the_url_is_read(url: str, shown: str) -> None:
    assert redacted(url) == shown


@settings(deadline=None, max_examples=30)
@given(st.text(min_size=3, max_size=12).map("SECRET{}TAIL".format))
def test_whatever_a_password_holds_nothing_of_it_is_said(password: str) -> None:
    url = f"postgresql+psycopg://ann:{password}@127.0.0.1:1/db"
    said = [redacted(url)]
    with pytest.raises(InvalidConfig) as caught:
        open_engine(url, create=False)
    said.append(str(caught.value))
    assert not any("SECRET" in each or "TAIL" in each for each in said)


def test_an_at_sign_that_was_not_encoded_is_named() -> None:
    with pytest.raises(
        InvalidConfig, match=r"has an '@' in its user or password; .* %40"
    ) as caught:
        open_engine("postgresql+psycopg://ann:first@tail@127.0.0.1:1/db", create=False)
    assert "tail" not in str(caught.value)
    with pytest.raises(InvalidConfig, match="is no database URL"):
        open_engine("postgresql+psycopg://ann:pw@host:port/db", create=False)


def test_a_percent_sign_in_the_install_path_is_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "50% off %(here)s"
    shutil.copytree(opening._MIGRATIONS, folder)
    monkeypatch.setattr(opening, "_MIGRATIONS", folder)
    opening._revisions.cache_clear()
    url = f"sqlite:///{tmp_path / 'a.db'}"
    open_engine(url, create=True).dispose()
    assert schema_of(url) == opening._revisions()[0]
    opening._revisions.cache_clear()


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where "tmp" is no folder
    with pytest.raises(InvalidConfig, match=r"there is no folder tmp/x; .* four slashes"):
        open_engine("sqlite:///tmp/x/a.db", create=True)


@contextmanager
def _unwritable(file: Path) -> Iterator[Path]:
    """A copy of a database where nobody but root can write."""
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copy(file, folder))
        copy.chmod(0o444)
        Path(folder).chmod(0o555)
        yield copy
        Path(folder).chmod(0o755)


def _as_nobody(work: Callable[[], str]) -> str:
    """What the work returns, or raises, in a process that is not root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        found = answers.read().decode()
    os.waitpid(child, 0)
    return found


def _file(config: StudyConfig) -> Path:
    return Path(config.storage.url.removeprefix("sqlite:///"))


def test_a_finished_study_is_read_where_nobody_writes(finished: StudyConfig) -> None:
    with open_study(finished.storage.url, EVIL_NAME) as store:
        best = best_schedule(store, 2)[0].id

    def read() -> str:
        with open_study(url, EVIL_NAME) as store:
            found = best_schedule(store, 2)[0].id
        storage = open_storage(url, writable=False)
        n = len(storage.get_all_trials(storage.get_study_id_from_name(EVIL_NAME)))
        return f"{found} {study_names(url) == [EVIL_NAME]} {n > 0}"

    with _unwritable(_file(finished)) as copy:
        url = f"sqlite:///{copy}"
        assert _as_nobody(read) == f"{best} True True"
        assert [each.name for each in copy.parent.iterdir()] == [copy.name]


def test_what_cannot_be_read_or_written_there_is_said(finished: StudyConfig) -> None:
    with _unwritable(_file(finished)) as copy:
        url = f"sqlite:///{copy}"
        found = _as_nobody(lambda: str(open_engine(url, create=True)))
        assert found.startswith("InvalidConfig: storage: cannot open")
        assert "the file or its folder cannot be written here" in found
        copy.parent.chmod(0o755)
        copy.with_name(f"{copy.name}-wal").write_bytes(b"changes")
        copy.parent.chmod(0o555)
        found = _as_nobody(lambda: str(study_names(url)))
        assert "its last changes are still in study.db-wal" in found
