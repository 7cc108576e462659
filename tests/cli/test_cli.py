"""Every command as a user types it: tables, JSON, files, and one sentence for what is wrong."""

import json
import re
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
import typer

import s3search
from s3search.cli import app, run
from s3search.processes import flow
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import check_table
from tests.suites.pool_suite import start_ray
from tests.support.forked import Forked, command_line
from tests.support.studies import study_file

ROOT = Path(s3search.__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out, parse_constant=_refuse)


Cli = Callable[..., Said]


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process, in an empty folder, on a screen of 80 columns."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("S3SEARCH_STORAGE", raising=False)

    def said(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["s3search", *map(str, arguments)])
        capfd.readouterr()
        code = run()
        captured = capfd.readouterr()
        return Said(code=code, out=captured.out, err=captured.err)

    return said


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study: study.toml, study.db, best.json."""
    path = tmp_path_factory.mktemp("finished")
    database = f"sqlite:///{path}/study.db"
    for words in (
        ["launch", str(study_file(path)), "--json"],
        ["export", "t", "--storage", database, "-o", str(path / "best.json"), "--json"],
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["s3search", *words])
            assert run() == 0
    return path


@pytest.fixture
def storage(folder: Path) -> str:
    return f"sqlite:///{folder}/study.db"


# -- what commands say ---------------------------------------------------------------------


def test_launch_prints_its_progress_and_the_comparison(cli: Cli, tmp_path: Path) -> None:
    said = cli("launch", study_file(tmp_path))
    assert (said.code, said.err) == (0, "")
    for word in (
        "costs about ",
        "trying published samplers: 2 %",
        "breeding: new schedules are made of the best so far, and measured",
        "final check: 60 held-out images of each of at most ",
        "final check on unseen noise: 100 %",
        "verdict for 3 calls: nearer than k-diffusion dpmpp_2s, but too few published samplers",
        "  against what runs today, k-diffusion dpmpp_2s: ",
        f"next: s3search export t --nfe 3 -o schedule.json --storage sqlite:///{tmp_path}/study.db",
        "s3search",
        " to ",
        "1.00x",
        "resampled",
    ):
        assert word in said.out
    assert "…" not in said.out  # nothing is cut off at 80 columns
    again = cli("launch", tmp_path / "study.toml", "--json")
    assert {row["is_baseline"] for row in again.json["rows"]} == {True, False}
    assert again.json["state"] == "done"


def test_status_best_and_compare_agree(cli: Cli, storage: str) -> None:
    status = cli("status", "t", "--storage", storage, "--json").json
    best = cli("best", "t", "--storage", storage, "--json").json["best"]
    compared = cli("compare", "t", "--storage", storage, "--json").json["rows"]
    assert cli("status", "--storage", storage, "--json").json == {"studies": [status]}
    counts = (status["evaluations"], status["budget"], status["pending"], status["failed"])
    assert counts == (6, 6, 0, 0)
    lowest = min(compared, key=lambda row: row["value"])
    assert best[0]["schedule_id"] == lowest["schedule_id"]
    assert best[0]["held_out"]["value"] == lowest["value"]
    assert best[0]["held_out"]["interval_95"] == lowest["interval_95"]
    assert lowest["is_winner"]
    low, high = best[0]["against_published"]["difference_95"]
    best_of = {
        is_baseline: min(row["value"] for row in compared if row["is_baseline"] is is_baseline)
        for is_baseline in (True, False)
    }
    assert low < best_of[True] - best_of[False] < high
    assert lowest["interval_95"][0] < lowest["value"] < lowest["interval_95"][1]
    assert (
        min(status["best"]["3"][key] for key in ("held_out", "held_out_baseline"))
        == (lowest["value"])
    )
    shown = f"{lowest['value']:.4f}"
    for command in ("status", "best", "compare"):
        said = cli(command, "t", "--storage", storage)
        assert (said.code, said.err) == (0, "")
        assert shown in said.out
        assert "…" not in said.out


def test_the_database_may_be_named_by_the_environment(
    cli: Cli, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3SEARCH_STORAGE", storage)
    assert cli("status", "t", "--json").json["state"] == "done"
    assert "t: done" in cli("status").out


def test_an_exported_schedule_gives_its_value_again(
    cli: Cli, storage: str, tmp_path: Path, folder: Path
) -> None:
    file = tmp_path / "best.json"
    told = cli("export", "t", "--nfe", 3, "-o", file, "--storage", storage, "--json").json
    schedule = Schedule.load(file)
    assert (told["file"], told["schedule_id"]) == (str(file), schedule.id)
    held_out = schedule.provenance["held_out"]
    options = ("--n-images", held_out["n_images"], "--seed", held_out["noise_seed"])
    measured = cli("evaluate", file, folder / "study.toml", *options, "--json").json
    assert measured["value"] == held_out["value"]
    assert measured["standard_error"] == held_out["standard_error"]
    assert measured["nfe"] == 3
    line = cli("evaluate", file, folder / "study.toml", *options).out
    assert line.startswith(f"frechet distance {held_out['value']:.4f} (standard error ")
    check_table(schedule, json.loads(file.read_text())["plan"])
    said = cli("export", "t", "-o", file, "--storage", storage)
    first, *claim = said.out.splitlines()
    says = schedule.provenance["claim"]["says"]
    assert claim[: len(says)] == says
    assert claim[len(says)].startswith("exact: schedule and compiled table")
    assert first == f"wrote {file}: NFE 3, {held_out['value']:.4f} on held-out noise"
    ratio = schedule.provenance["against_published"]["ratio"]
    assert any(f"published / found {ratio:.2f} (95 % " in sentence for sentence in says)


def test_evaluate_stores_nothing(cli: Cli, folder: Path) -> None:
    before = (folder / "study.db").read_bytes()
    cli("evaluate", folder / "best.json", folder / "study.toml", "--n-images", 20)
    assert (folder / "study.db").read_bytes() == before


def test_show_draws_a_schedule(cli: Cli, folder: Path, tmp_path: Path) -> None:
    file, png = folder / "best.json", tmp_path / "best.png"
    said = cli("show", file, "--png", png)
    assert (said.code, said.err) == (0, "")
    assert "NFE 3" in said.out
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    schedule = Schedule.load(file)
    assert cli("show", file, "--json").json == {**schedule.to_dict(), "id": schedule.id}


def test_check_says_what_a_file_is(cli: Cli, folder: Path) -> None:
    found = cli("check", folder / "best.json", "--json").json
    assert (found["valid"], found["kind"], found["nfe"]) == (True, "schedule", 3)
    found = cli("check", folder / "study.toml", "--json").json
    assert (found["valid"], found["kind"], found["name"]) == (True, "study", "t")
    assert "valid (kind study, name t)" in cli("check", folder / "study.toml").out


def test_the_printed_schema_accepts_an_export(cli: Cli, folder: Path) -> None:
    schema = cli("tools", "schema").json
    jsonschema.validate(json.loads((folder / "best.json").read_text()), schema)


def test_every_command_has_help(cli: Cli) -> None:
    for words in _commands(typer.main.get_command(app)):
        said = cli(*words, "--help")
        assert (said.code, said.err) == (0, "")
        assert "Usage:" in said.out
        assert "..." not in said.out.partition("Commands:")[2]  # no sentence is cut
        assert cli(*words, "-h").out == said.out
    assert not re.search(r"^  [a-z].*\.\.\.$", cli("-h").out, flags=re.MULTILINE)
    assert "Look (s3search best my-study):" in cli().err
    assert "\n  retime " in cli("tools").err
    assert (cli().code, cli("tools").code) == (2, 2)


def _commands(group: Any) -> Iterator[tuple[str, ...]]:
    """Every command as it is typed, groups too."""
    for name, command in getattr(group, "commands", {}).items():
        yield (name,)
        yield from ((name, *words) for words in _commands(command))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("schema",), ("tools", "schema")),
        (("statistics", "ems"), ("tools", "statistics", "ems")),
        (("checkpoint", "inspect"), ("tools", "checkpoint", "inspect")),
        (("train-digits",), ("tools", "train-digits")),
        (("submit",), ("jobs", "submit")),
        (("publish",), ("storage", "publish")),
    ],
)
def test_an_old_name_works_and_says_the_new_one(
    cli: Cli, old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    said, same = cli(*old, "--help"), cli(*new, "--help")
    assert (said.code, said.out) == (same.code, same.out)
    typed = " ".join(new[: len(new) + 1 - len(old)])
    assert said.err == (
        f"note: `s3search {old[0]}` is now `s3search {typed}`; the next version knows the new "
        "name alone\n"
    )
    assert not re.search(rf"^  {old[0]} ", cli("-h").out, flags=re.MULTILINE)
    wrong = cli(*old, "--nosuch")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.splitlines()[1].startswith("error: No such option: --nosuch")


def test_a_shell_that_completes_an_old_name_hears_no_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_S3SEARCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "s3search statistics ")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        app(prog_name="s3search")
    said = capsys.readouterr()
    assert (said.out.split(), said.err) == (["ems", "gaussian"], "")


def test_the_help_lists_every_command_once_in_its_group(cli: Cli) -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    titles = re.split(r"^(?=\w.* \(s3search .*\):$)", cli("-h").out, flags=re.MULTILINE)[1:]
    listed = [re.findall(r"^  ([a-z][a-z-]*)  ", each, flags=re.MULTILINE) for each in titles]
    assert sorted(name for names in listed for name in names) == sorted(known)
    for title in titles:  # the example runs a command of some group
        assert title.partition("(s3search ")[2].split()[0] in known


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    said = cli("--version")
    assert (said.code, said.out) == (0, f"s3search {version('s3search')}\n")


@pytest.mark.slow
@pytest.mark.cluster
def test_the_demo_leaves_a_study_a_schedule_and_pictures(cli: Cli, tmp_path: Path) -> None:
    start_ray()
    said = cli("demo", "--quick", "-o", tmp_path / "demo", "--json")
    assert said.err.splitlines()[-1].startswith(
        "final check on unseen noise: "
    )  # progress is not in the JSON
    found = json.loads(said.out)
    names = ["study.toml", "schedule.json", "schedule.png", "samples.png"]
    assert found["files"] == [str(tmp_path / "demo" / name) for name in names]
    assert found["state"] == "done"
    assert Schedule.load(tmp_path / "demo" / "schedule.json").nfe == 5


# -- the dashboard -------------------------------------------------------------------------


def test_the_dashboard_serves_the_study_on_loopback_only(storage: str, tmp_path: Path) -> None:
    words = ("dashboard", "--port", "0", "--json")
    environment = {"PYTHONPATH": str(ROOT), "S3SEARCH_STORAGE": storage}
    process = Forked(command_line, *words, cwd=tmp_path, env=environment)
    try:
        said = json.loads("".join(process.stdout.readline() for _ in range(6)))
        url = said["url"]
        assert said["writable"] is False
        with urllib.request.urlopen(url) as reply:
            assert reply.status == 200
        with urllib.request.urlopen(url.replace("/dashboard", "/api/studies")) as reply:
            studies = json.load(reply)["study_summaries"]
        assert [study["study_name"] for study in studies] == ["t"]
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        assert _listening_addresses(port) == {"0100007F"}  # 127.0.0.1
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == ""


def _listening_addresses(port: int) -> set[str]:
    """Local addresses, in the kernel's hexadecimal, on which this machine listens to ``port``."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            host, _, number = address.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(host)
    return found


# -- what is wrong -------------------------------------------------------------------------


def _assert_refused(said: Said, tree: Path, before: set[Path], *words: str) -> None:
    """One sentence, exit code 2, and no new file anywhere."""
    assert said.code == 2, said
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err
    assert set(tree.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.evalutions=5", ("search.evalutions: unknown key", "'evaluations'")),
        ("serch.evaluations=5", ("serch: unknown key", "'search'")),
        ("space.preset=ufs", ("ufs", "'usf'")),
        ("space.odrers=[1]", ("odrers", "'orders'")),
        ("space.orders=[9]", ("orders", "9")),
        ("space.nfe=[0]", ("space.nfe", "from 1 to 100")),
        ("search.n_images=nan", ("search.n_images",)),
        ("search.algorithm=evolutoin", ("'evolutoin'", "'evolution'")),
        ("search.algorithm='optuna:tep'", ("'tep'", "'tpe'")),
        ("cluster.address=nowhere", ("'nowhere'", "'inline'")),
        ("cluster.workers=0", ("cluster.workers",)),
        ("model.loader=digit", ("'digit'", "'digits'")),
        ("model.loader=no_such_package:load", ("cannot import 'no_such_package'", "PYTHONPATH")),
        ("model.loader=tests.support.plugins:gauss", ("no function 'gauss'", "'gaussian'")),
        ("model.loader=tests.support.plugins:broken", ("no such checkpoint",)),
        ("model.loader=tests.support.plugins:nothing", ("'process'",)),
        ("model.sceonds=1", ("[model]", "'seconds'")),
        ("reference.images=tests.support.plugins:bytes_images", ("reference.images", "uint8")),
        ("storage.url=nonsense", ("no database URL", "sqlite:///")),
        ("model.loader.a.b=1", ("'loader' is not a table",)),
        ("search", ("--set takes table.key=value",)),
    ],
)
def test_a_wrong_study_is_one_sentence_and_leaves_nothing(
    cli: Cli, tmp_path: Path, override: str, words: tuple[str, ...]
) -> None:
    file = study_file(tmp_path)
    before = set(tmp_path.rglob("*"))
    said = cli("launch", file, "--set", override)
    _assert_refused(said, tmp_path, before, *words)


def _shifted(table: Any) -> Any:
    """A compiled table whose numbers are all a little off."""
    if isinstance(table, dict):
        return {key: _shifted(value) for key, value in table.items()}
    if isinstance(table, list):
        return [_shifted(value) for value in table]
    return table + 1e-3 if isinstance(table, float) else table


def _broken(name: str, folder: Path) -> str:
    """The text of a schedule file with one fault."""
    data = json.loads((folder / "best.json").read_text())
    match name:
        case "order":
            steps = [{"predictor": {"rule": "taylor", "prediction": "data", "order": 4}}]
            data |= {"steps": steps, "times": [80.0, 0.01]}
            data.pop("nfe")
        case "times":
            data["times"][1] = data["times"][0]
        case "nan":
            data["times"][1] = float("nan")
        case "key":
            data["tmies"] = data.pop("times")
        case "version":
            data["version"] = 99
        case "plan":
            data["plan"] = _shifted(data["plan"])
        case "json":
            return json.dumps(data)[:-40]
    return json.dumps(data)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("order", ("steps[0].predictor",)),
        ("times", ("times[1]", "must fall")),
        ("nan", ("NaN is not a number",)),
        ("key", ("tmies: unknown key", "'times'")),
        ("version", ("version", "99")),
        ("plan", ("plan:", "export again")),
        ("json", ("not valid JSON",)),
    ],
)
def test_a_wrong_schedule_is_one_sentence(
    cli: Cli, tmp_path: Path, folder: Path, fault: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(_broken(fault, folder))
    before = set(tmp_path.rglob("*"))
    commands = [("check", file)]
    if fault != "plan":
        commands += [
            ("show", file, "--png", tmp_path / "x.png"),
            ("evaluate", file, folder / "study.toml"),
        ]
    for command in commands:
        _assert_refused(cli(*command), tmp_path, before, *words)


def test_wrong_arguments_are_one_sentence_and_leave_nothing(
    cli: Cli, tmp_path: Path, folder: Path, storage: str
) -> None:
    study, best = folder / "study.toml", folder / "best.json"
    (tmp_path / "file").touch()
    for_flow = tmp_path / "flow.json"
    published.ddim(flow(), nfe=3, spacing="uniform").save(for_flow)
    there = ("--storage", storage)
    cases: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        (("evaluate", for_flow, study), ("process", "flow", "edm")),
        (("evaluate", best, study, "--n-images", 1), ("--n-images",)),
        (("evaluate", best, study, "--address", "nowhere"), ("'nowhere'",)),
        (("launch", tmp_path / "none.toml"), ("none.toml", "cannot be read")),
        (("check", tmp_path / "none.toml"), ("none.toml", "cannot be read")),
        (("show", tmp_path / "none.json"), ("none.json", "cannot be read")),
        (("status", "--storage", f"sqlite:///{tmp_path}/none.db"), ("no database file",)),
        (("status",), ("no database file", "--storage")),
        (("dashboard",), ("no database file",)),
        (("status", "nosuch", *there), ("no study 'nosuch'",)),
        (("best", "nosuch", *there), ("no study 'nosuch'",)),
        (("compare", "nosuch", *there), ("no study 'nosuch'",)),
        (("best", "t", "--nfe", 7, *there), ("searches NFE 3", "asked for 7")),
        (("export", "t", "--nfe", 7, "-o", "x.json", *there), ("searches NFE 3",)),
        (("export", "t", "--format", "pkl", "-o", "x", *there), ("--format", "'pkl'")),
        (("export", "t", "-o", tmp_path, *there), ("cannot write", "a folder")),
        (("export", "t", "-o", tmp_path / "no" / "x", *there), ("cannot write", "no folder")),
        (("export", "t", "-o", "/proc/x.json", *there), ("cannot write /proc/x.json",)),
        (("show", best, "--png", "/proc/x.png"), ("cannot write /proc/x.png",)),
        (("tools", "train-digits", "-o", "/proc/x"), ("cannot write /proc/x",)),
        (("demo", "-o", tmp_path / "file"), ("cannot make the folder",)),
        (("dashboard", "--port", 99999, *there), ("--port", "99999")),
        (("dashboard", "--host", "0.0.0.0", *there), ("--host 0.0.0.0", "--password-file")),
        (("dashboard", "--password-file", tmp_path / "no", *there), ("cannot be read",)),
        (("lanuch", study), ("lanuch", "--help")),
        (("launch", study, "--adress", "inline"), ("--adress", "launch --help")),
        (("launch",), ("STUDY.toml", "launch --help")),
        (("evaluate", best, study, "--seed", "many"), ("--seed", "integer")),
    ]
    before = set(tmp_path.rglob("*"))
    for arguments, words in cases:
        _assert_refused(cli(*arguments), tmp_path, before, *words)


def test_a_database_of_another_release_is_refused_and_left_alone(
    cli: Cli, tmp_path: Path, folder: Path
) -> None:
    database = tmp_path / "study.db"
    database.write_bytes((folder / "study.db").read_bytes())
    engine = sa.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        connection.execute(sa.text("update s3search_alembic_version set version_num = '9999'"))
    engine.dispose()
    content, file = database.read_bytes(), study_file(tmp_path)
    before = set(tmp_path.rglob("*"))
    there = ("--storage", f"sqlite:///{database}")
    for command in (("launch", file), ("status", *there), ("dashboard", *there)):
        _assert_refused(cli(*command), tmp_path, before, "schema version '9999'")
    assert database.read_bytes() == content


def test_another_study_of_the_same_name_is_refused(cli: Cli, folder: Path, storage: str) -> None:
    before = set(folder.rglob("*"))
    said = cli("launch", folder / "study.toml", "--set", "study.seed=5")
    _assert_refused(said, folder, before, "study.seed = 0, asked for 5", "another name")
    assert cli("status", "t", "--storage", storage, "--json").json["state"] == "done"


def test_a_search_that_fails_and_a_database_that_fails_exit_with_1(
    cli: Cli, tmp_path: Path
) -> None:
    file = study_file(tmp_path)
    said = cli("launch", file, "--set", "model.fail=true", "--set", "search.check=false", "--json")
    assert (said.code, said.out) == (1, "")
    last = said.err.splitlines()[-1]
    assert last.startswith("error: 10 evaluations in a row failed: EvaluationFailed: the images")
    url = f"sqlite:///{tmp_path}/study.db"
    assert cli("status", "t", "--storage", url, "--json").json["state"] == "failed"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("drop table s3search_evaluations"))
    engine.dispose()
    said = cli("status", "t", "--storage", url)
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert said.err.startswith("error: the database failed (no such table")
