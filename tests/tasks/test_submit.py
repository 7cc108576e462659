"""What a submitted study sends to a cluster, and what it refuses to send."""

import shlex
from pathlib import Path

import pytest

from s3search.errors import InvalidConfig
from s3search.tasks.submit import Submission, submission_of, travelling_folder
from tests.support.studies import study_config, study_file

REMOTE = "postgresql+psycopg://ann@db.example/s3"


def submission(
    here: Path,
    *sets: str,
    storage: str = REMOTE,
    folder: Path | None = None,
    head_storage: bool = False,
) -> Submission:
    """A submission of the test study in ``here``, with the database chosen as by --storage."""
    chosen = f"storage.url={storage!r}"
    config = study_config(here, *sets, chosen)
    return submission_of(
        config,
        here / "study.toml",
        sets=sets,
        folder=folder,
        head_storage=head_storage,
    )


def test_the_job_launches_the_study_on_its_cluster(tmp_path: Path) -> None:
    sent = submission(tmp_path, "cluster.workers=3", "study.name=a b")
    assert sent.study == "a b"
    assert shlex.split(sent.command) == [
        *("exec", "s3search", "launch", "study.toml", "--address", "auto"),
        *("--set", "cluster.workers=3", "--set", "study.name=a b", "--storage", REMOTE),
    ]
    assert sent.notes == ()


def test_the_study_file_travels_alone(tmp_path: Path) -> None:
    study = study_file(tmp_path)
    (tmp_path / "private.key").write_text("key")
    with travelling_folder(study, None) as folder:
        assert [path.name for path in folder.iterdir()] == ["study.toml"]
        assert (folder / "study.toml").read_text() == study.read_text()
    assert not folder.exists()


def test_a_folder_travels_if_asked_for_and_the_study_is_named_in_it(tmp_path: Path) -> None:
    inner = tmp_path / "studies"
    inner.mkdir()
    sent = submission(inner, folder=tmp_path)
    assert "launch studies/study.toml" in sent.command
    with travelling_folder(inner / "study.toml", tmp_path) as folder:
        assert folder == tmp_path
    with pytest.raises(InvalidConfig, match=r"study\.toml is not in it"):
        submission(tmp_path, folder=inner)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ann:s3cret@db.example/s3",
        "postgresql+psycopg://db.example/s3?user=ann&password=s3cret",
        "mysql://db.example/s3?passwd=s3cret",
        "postgresql+psycopg://db.example/s3?sslpassword=s3cret",
    ],
)
@pytest.mark.parametrize("head_storage", [False, True])
def test_a_password_is_refused_and_not_repeated(
    tmp_path: Path, url: str, *, head_storage: bool
) -> None:
    with pytest.raises(InvalidConfig, match=r"has a password.*pgpass.*--head-storage") as caught:
        submission(tmp_path, storage=url, head_storage=head_storage)
    assert "s3cret" not in str(caught.value)


def test_with_the_heads_own_database_the_command_names_none(tmp_path: Path) -> None:
    sent = submission(tmp_path, storage="sqlite:///s3search.db", head_storage=True)
    assert "--storage" not in sent.command
    assert "s3search.db" not in sent.command
    assert sent.storage == "$S3SEARCH_STORAGE"


@pytest.mark.parametrize("url", ["sqlite:///s3search.db", "sqlite://", "sqlite:///:memory:"])
def test_a_file_that_goes_with_the_job_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidConfig, match="deleted with the job; give --storage postgresql"):
        submission(tmp_path, storage=url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////data/s3.db", "/data/s3.db is a file of the head"),
        ("postgresql+psycopg://ann@localhost/s3", "localhost means the head"),
        ("postgresql+psycopg:///s3", "a local socket means the head"),
    ],
)
def test_a_database_of_the_head_is_said_to_be_one(tmp_path: Path, url: str, words: str) -> None:
    (note,) = submission(tmp_path, storage=url).notes
    assert words in note


def test_no_url_and_an_override_of_the_url_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no database URL"):
        submission(tmp_path, storage="s3cret at nowhere")
    with pytest.raises(InvalidConfig, match="with --storage"):
        submission(tmp_path, f"storage.url={REMOTE}")


def test_a_file_that_would_stay_behind_is_refused_unless_its_folder_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text("{}")
    Path("usf").mkdir()  # the name of a preset, which is not this folder
    seeds = "search.seeds=['mine.json']"
    with pytest.raises(
        InvalidConfig, match=r"search\.seeds: mine\.json is a file of this machine"
    ):
        submission(tmp_path, seeds)
    assert "mine.json" in submission(tmp_path, seeds, folder=tmp_path).command
    assert submission(tmp_path, "search.seeds=['/shared/mine.json']").notes == ()
