"""Who may look at a study and who may change it, asked of the real application."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from wsgiref.types import WSGIApplication

import bcrypt
import optuna
import pytest
import sqlalchemy as sa

from s3search.errors import InvalidConfig, StudyConflict
from s3search.show.dashboard import Access, Address, Login, application, serve
from s3search.show.dashboard.storage import open_storage
from s3search.study.database.engine import open_engine
from s3search.study.file.config import StudyConfig
from tests.show.dashboard.client import ask

CHANGES = (
    ("DELETE", "/api/studies/1", None),
    ("POST", "/api/studies", {"study_name": "x", "directions": ["minimize"]}),
    ("POST", "/api/studies/1/rename", {"study_name": "x"}),
    ("PUT", "/api/studies/1/note", {"body": "x", "version": 1}),
    ("PUT", "/api/studies/1/1/note", {"body": "x", "version": 1}),
    ("POST", "/api/trials/1/user-attrs", {"user_attrs": {"tag": "x"}}),
    ("POST", "/api/trials/1/tell", {"state": "Fail"}),
    ("POST", "/api/artifacts/1", {"file": "data:text/plain;base64,eA==", "filename": "x"}),
    ("DELETE", "/api/artifacts/1/aa", None),
    ("PATCH", "/dashboard", None),
    ("TRACE", "/", None),
)


@pytest.fixture
def database(finished: StudyConfig, tmp_path: Path) -> str:
    """A copy of the finished study's database."""
    file = tmp_path / "study.db"
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), file)
    return f"sqlite:///{file}"


@pytest.fixture
def shown(database: str) -> Iterator[WSGIApplication]:
    with application(database, Access()) as served:
        yield served


def _login(folder: Path, text: str) -> Login:
    file = folder / "logins"
    file.write_text(text, encoding="utf-8")
    return Login.from_file(file)


def _basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def _close(storage: optuna.storages.RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _tables(url: str) -> set[str]:
    engine = sa.create_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def _content(url: str) -> list[tuple[object, ...]]:
    """Every row of every table of Optuna's."""
    engine = sa.create_engine(url)
    try:
        metadata = sa.MetaData()
        metadata.reflect(engine)
        with engine.connect() as connection:
            tables = metadata.sorted_tables
            return [(t.name, *row) for t in tables for row in connection.execute(sa.select(t))]
    finally:
        engine.dispose()


@pytest.mark.parametrize(("method", "path", "content"), CHANGES)
def test_a_read_only_dashboard_changes_nothing(
    shown: WSGIApplication, database: str, method: str, path: str, content: object
) -> None:
    before = _content(database)
    found = ask(shown, path, method, content=content)
    assert found.status == 403
    reason = found.json["reason"] if path.startswith("/api/") else found.text
    assert "read-only" in reason and "--writable" in reason
    assert _content(database) == before


def test_the_database_of_a_read_only_dashboard_refuses_by_itself(url: str) -> None:
    """Were the guard to let a change through, there would still be none."""
    open_engine(url, create=True).dispose()
    tables = _tables(url)
    with pytest.raises(StudyConflict, match="no trial yet"), application(url, Access()):
        pass
    assert _tables(url) == tables
    own = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=own, study_name="t")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    _close(own)
    before = _content(url)
    storage = open_storage(url, writable=False)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        storage.delete_study(study._study_id)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        storage.set_study_user_attr(study._study_id, "a", 1)
    _close(storage)
    assert _content(url) == before


def test_a_writable_dashboard_takes_notes(database: str) -> None:
    with application(database, Access(writable=True)) as served:
        assert ask(served, "/api/studies/1/note", "PUT", content=_note("seen")).status == 204
        assert ask(served, "/api/studies/1").json["note"]["body"] == "seen"
        own = ask(served, "/api/studies/1", "DELETE", content={}, Origin="http://127.0.0.1:8080")
        assert own.status == 204
        assert ask(served, "/api/studies").json["study_summaries"] == []


def _note(body: str) -> dict[str, object]:
    return {"body": body, "version": 1}


def test_changes_come_from_the_pages_own_origin(database: str) -> None:
    foreign = (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    )
    with application(database, Access(writable=True)) as served:
        for headers in foreign:
            found = ask(served, "/api/studies/1", "DELETE", **headers)
            assert (found.status, "own pages" in found.json["reason"]) == (403, True)
        assert len(ask(served, "/api/studies").json["study_summaries"]) == 1


@pytest.mark.parametrize("path", ["/", "/dashboard", "/api/studies", "/static/bundle.js", "/api"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "0.0.0.0",
        "",
        "[::1",
        "10.0.0.1",
    ],
)
def test_another_name_is_refused(shown: WSGIApplication, path: str, host: str) -> None:
    found = ask(shown, path, host=host)
    assert found.status == 403
    assert "--allow-host" in found.text


def test_own_and_allowed_names_are_served(database: str) -> None:
    with application(database, Access(hosts=frozenset({"studies.example"}))) as served:
        for host in ("127.0.0.1", "localhost:80", "LOCALHOST:1", "[::1]:80", "Studies.example"):
            assert ask(served, "/api/studies", host=host).status == 200
        assert ask(served, "/api/studies", host="other.example").status == 403


def _hashed(login: str) -> str:
    name, _, password = login.partition(":")
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"


def test_plain_lines_open_the_door_and_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match=r"can be read.*htpasswd -nB"):
        login = _login(tmp_path, f"ada:love:lace\n{_hashed('eve:x')}\n")
    assert [
        login.opens(_basic(each)) for each in ("ada:love:lace", "eve:x", "eve:y", "ada:x")
    ] == [*(True, True, False, False)]


def test_a_hash_is_checked_once_for_each_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is slow by design, and every request of a page has the header; who is not known costs as
    much as who is.
    """
    login = _login(tmp_path, f"# of the team\n{_hashed('ada:x')}\n")
    checked = []
    original = bcrypt.checkpw
    monkeypatch.setattr("bcrypt.checkpw", lambda *given: checked.append(1) or original(*given))
    assert all(login.opens(_basic("ada:x")) for _ in range(5)) and len(checked) == 1
    assert not any(login.opens(_basic(each)) for each in ("ada:y", "bob:x", "ada:" + 99 * "x"))
    assert len(checked) == 4
    assert not login.opens(_basic("ada:x\0"))


def test_a_login_is_asked_for_and_compared_whole(database: str, tmp_path: Path) -> None:
    login = _login(tmp_path, f"{_hashed('ada:love:lace')}\n\n{_hashed('böb:ß')}\n")
    assert "$2b$" not in repr(login)
    wrong = (
        "",
        "ada",
        "ada:",
        "ada:love",
        "ada:love:lace ",
        "ADA:love:lace",
        ":",
        "ada:love:lacebob:b",
    )
    with application(database, Access(login=login, writable=True)) as served:
        for path in ("/dashboard", "/api/studies", "/static/bundle.js", "/favicon.ico"):
            found = ask(served, path)
            assert found.status == 401
            assert found.headers["www-authenticate"].startswith('Basic realm="s3search"')
        for given in (
            *map(_basic, wrong),
            "Basic",
            "Basic ***",
            "Bearer ada:love:lace",
            "Basic é",
        ):
            assert ask(served, "/api/studies", Authorization=given).status == 401
            right = _basic("ada:love:lace")  # after which the next failure is the first again
            assert ask(served, "/api/studies", Authorization=right).status == 200
        assert ask(served, "/api/studies/1", "DELETE", Authorization=_basic("a:b")).status == 401
        for given in ("ada:love:lace", "böb:ß"):
            assert ask(served, "/api/studies", Authorization=_basic(given)).status == 200
        # a foreign name learns nothing, not even that there is a login
        found = ask(served, "/", host="evil.example", Authorization=_basic("ada:love:lace"))
        assert found.status == 403


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a:b\nab\n", "line 2"),
        (":b", "line 1"),
        ("#\na:$apr1$x$abcdefgh", "line 2 has a hash that is not bcrypt's"),
        ("a:{SHA}abc=", "htpasswd -nB"),
        (f"a:$2y$31${53 * 'a'}", "cost 4 to 17"),
    ],
)
def test_a_login_file_must_hold_logins(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        _login(tmp_path, text)
    with pytest.raises(InvalidConfig, match="cannot be read"):
        Login.from_file(tmp_path / "none")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_other_machines_are_not_served_without_a_login(database: str, host: str) -> None:
    with pytest.raises(InvalidConfig, match="--password-file"):
        serve(database, Address(host, 0), Access(), announce=lambda _: None)
    assert all(Address(own).is_loopback for own in ("127.0.0.1", "127.0.0.2", "localhost", "::1"))


def test_every_answer_has_the_headers_of_a_careful_server(shown: WSGIApplication) -> None:
    answers = {path: ask(shown, path) for path in ("/", "/dashboard", "/api/studies", "/nothing")}
    answers["refused"] = ask(shown, "/api/studies", "POST", content={})
    answers["artifact"] = ask(shown, "/artifacts/1/1/aa")
    for found in answers.values():
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["x-frame-options"] == "SAMEORIGIN"
        assert found.headers["referrer-policy"] == "same-origin"
        assert "default-src 'none'" in found.headers["content-security-policy"] or (
            found is answers["/dashboard"]
        )
        assert "access-control-allow-origin" not in found.headers
    assert "script-src 'self'" in answers["/dashboard"].headers["content-security-policy"]
    assert answers["artifact"].headers["content-security-policy"].endswith("sandbox")
    assert {answers[path].status for path in ("/dashboard", "/api/studies")} == {200}


def test_the_dashboard_answers_heads_and_loads_its_script(shown: WSGIApplication) -> None:
    refused = ask(shown, "/", "HEAD", host="evil.example")
    assert (refused.status, refused.body) == (403, b"")
    assert ask(shown, "/dashboard", "HEAD").body == b""
    page = ask(shown, "/dashboard").text
    (script,) = re.findall(r'<script[^>]* src="([^"]+)"', page)
    assert ask(shown, script).status == 200
