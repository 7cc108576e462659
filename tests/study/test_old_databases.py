"""Databases and schedule files of before the rebuild: read, understood, and gone on with.

tests/data/before_house/README.md says how they were made.  What is asked here is asked of the
command line and of the database itself, so that no room of the house behind them is named.
"""

import ast
import difflib
import gzip
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from s3search.cli import run
from s3search.evaluation.evaluator import Evaluator
from tests.support.arithmetic import arithmetic_digest
from tests.support.page_numbers import page_numbers
from tests.support.specs import evaluator_spec

DATA = Path(__file__).parents[1] / "data" / "before_house"
FINISHED = sorted(path.stem for path in (DATA / "said").glob("*.json"))
KILLED = sorted(path.name.split(".")[0] for path in DATA.glob("killed-*.db.gz"))
SCHEDULES = sorted(path.stem for path in (DATA / "schedules").glob("*.json"))

_REFERENCE = b"7ac223a5a8e9fe59"  # digest of the real digits, where the data was made
_ROUNDED = ("reference_digest",)  # of numbers that another machine rounds otherwise
_EDITION = ("code_version",)  # what is measured on resuming is measured by the code of the day

_OF_STUDY = "WHERE study_id = (SELECT id FROM s3search_studies WHERE name = ?)"
_EVALUATION = "schedule_id, rung, n_images, noise_seed, state, value, standard_error"
_ROWS = {
    "proposals": "SELECT number, schedule_id, origin, parents FROM s3search_proposals "
    f"{_OF_STUDY} ORDER BY number",
    "evaluations": f"SELECT {_EVALUATION} FROM s3search_evaluations {_OF_STUDY} ORDER BY id",
    "jobs": f"SELECT kind, digest, state FROM s3search_jobs {_OF_STUDY} ORDER BY id",
    "trials": "SELECT CAST(a.value_json AS INTEGER), t.state, v.value FROM trials t "
    "JOIN studies s ON s.study_id = t.study_id "
    "JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 's3search:number' "
    "LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0 "
    "WHERE s.study_name = ? ORDER BY 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process, in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("S3SEARCH_STORAGE", raising=False)

    def said(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["s3search", *map(str, arguments)])
        capfd.readouterr()
        code = run()
        captured = capfd.readouterr()
        return Said(code=code, out=captured.out, err=captured.err)

    return said


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The data was made with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def is_alike(_one_thread: None) -> bool:
    """Whether this machine rounds as the one did on which the data was made."""
    return bool(_recorded("arithmetic.json")["digest"] == arithmetic_digest())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of finished studies, for tests that only look."""
    return _upgraded("finished", tmp_path_factory.mktemp("finished"))


@pytest.fixture
def _no_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without optuna-dashboard, for which a launch would draw many pictures."""
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)


def _upgraded(name: str, folder: Path) -> Path:
    """A database of the data, brought up to date as one does who installed a new release."""
    path = _unpacked(name, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["s3search", "storage", "upgrade", *_at(path)])
        assert run() == 0
    return path


def _unpacked(name: str, folder: Path) -> Path:
    path = folder / f"{name}.db"
    path.write_bytes(gzip.decompress((DATA / f"{name}.db.gz").read_bytes()))
    return path


def _for_this_machine(name: str, folder: Path) -> Path:
    """A database whose studies go on here: where this machine adds up otherwise, the real images
    have another digest by their last digits.
    """
    path = _unpacked(name, folder)
    spec = evaluator_spec(model="digits", features="digits", reference="digits")
    own = Evaluator(spec).reference.digest
    path.write_bytes(path.read_bytes().replace(_REFERENCE, own.encode()))
    return path


def _at(database: Path) -> tuple[str, str]:
    return "--storage", f"sqlite:///{database}"


def _recorded(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def _names(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        names = connection.execute("SELECT name FROM s3search_studies ORDER BY name")
        return [name for (name,) in names]


def _rows(database: Path, study: str) -> dict[str, list[list[Any]]]:
    """Proposals, evaluations and jobs of a study in their order, its trials by their numbers."""
    with closing(sqlite3.connect(database)) as connection:
        return {
            name: [list(row) for row in connection.execute(query, (study,))]
            for name, query in _ROWS.items()
        }


def _different(recorded: Any, found: Any, *, is_alike: bool, path: str = "") -> list[str]:
    """Where ``found`` does not say what was recorded; that it says more is no difference."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        return [
            line
            for key in recorded
            if key not in _EDITION and (is_alike or key not in _ROUNDED)
            for line in _different(
                recorded[key], found.get(key), is_alike=is_alike, path=f"{path}.{key}"
            )
        ]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        return [
            line
            for i, (own, other) in enumerate(zip(recorded, found, strict=True))
            for line in _different(own, other, is_alike=is_alike, path=f"{path}[{i}]")
        ]
    is_rounded = not is_alike and isinstance(recorded, float) and isinstance(found, float)
    if found == (pytest.approx(recorded, rel=1e-4) if is_rounded else recorded):
        return []
    return [f"{path}: recorded {recorded!r}, found {found!r}"]


# -- finished studies ----------------------------------------------------------------------


@pytest.mark.parametrize("study", FINISHED)
def test_commands_say_of_a_finished_study_what_they_said(
    cli: Cli, finished: Path, tmp_path: Path, is_alike: bool, study: str
) -> None:
    recorded, outcome = _recorded(f"said/{study}.json"), _recorded(f"outcomes/{study}.json")
    for command in ("status", "best", "compare"):
        found = cli(command, study, *_at(finished), "--json").json
        assert _different(recorded[command], found, is_alike=is_alike) == []
    for nfe, file in outcome["best"].items():
        exported = tmp_path / f"{nfe}.json"
        told = cli("export", study, "--nfe", nfe, "-o", exported, *_at(finished), "--json").json
        assert _different(file, json.loads(exported.read_text()), is_alike=is_alike) == []
        assert told["schedule_id"] == cli("check", exported, "--json").json["id"]
    page = tmp_path / "report.html"
    assert cli("report", study, "--no-samples", "-o", page, *_at(finished)).code == 0
    status = cli("status", study, *_at(finished), "--json").json
    _assert_page_says(page_numbers(page.read_text()), _told_as_share(recorded, status))


def _assert_page_says(found: list[str], recorded: list[str]) -> None:
    """The page says more today, and its summary in other words; the rest is as it was."""
    matcher = difflib.SequenceMatcher(None, recorded, found, autojunk=False)
    edits = [edit for edit in matcher.get_opcodes() if edit[0] in ("delete", "replace")]
    moved = [number.rstrip(",") for _, i, j, *_ in edits for number in recorded[i:j]]
    assert len(moved) <= 17
    signless = {number.lstrip("-") for number in moved}  # a negative optimism is a pessimism today
    assert signless <= {number.rstrip(",").lstrip("-") for number in found}


def _told_as_share(recorded: Any, status: Any) -> list[str]:
    """The report's numbers, where it told evaluations and their budget the share of the budget
    and all that was measured.
    """
    before: list[str] = recorded["report"]
    old = recorded["status"]
    made, known = old["evaluations"], old["baselines"]
    ends = [f"{old[key]:,}" for key in ("validated", "failed", "network_calls")]
    told = [f"{made:,}", f"{old['budget']:,}", f"{known:,}", *ends]
    (at,) = (i for i in range(len(before)) if before[i : i + len(told)] == told)
    shared = ["100", *page_numbers(status["budget_words"]), f"{made + known:,}", f"{known:,}"]
    return [*before[:at], *shared, *ends, *before[at + len(told) :]]


def test_one_database_holds_all_finished_studies(cli: Cli, finished: Path) -> None:
    said = cli("status", *_at(finished), "--json").json["studies"]
    assert [each["study"] for each in said] == FINISHED
    assert {each["state"] for each in said} == {"done"}
    for study in FINISHED:
        assert (
            cli("veto", study, *_at(finished), "--json").json["vetoed"]
            == _recorded(f"said/{study}.json")["status"]["vetoed"]
        )


def test_a_finished_study_that_is_launched_again_asks_for_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    database = _for_this_machine("finished", tmp_path)
    before = _rows(database, "vetoed")
    assert cli("launch", DATA / "studies" / "vetoed.toml", *_at(database)).code == 0
    assert _rows(database, "vetoed") == before


# -- killed studies ------------------------------------------------------------------------

_OTHERWISE = ("s3", "s3-two", "extended-s3", "vetoed-s3")  # go on by the search of the day


@pytest.mark.usefixtures("_no_dashboard")
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_study_comes_to_what_it_would_have(
    cli: Cli, tmp_path: Path, is_alike: bool, name: str
) -> None:
    database = _for_this_machine(name, tmp_path)
    (study,) = _names(database)
    before = _rows(database, study)
    said = cli("launch", DATA / "studies" / f"{study}.toml", *_at(database), "--json")
    assert said.json["state"] == "done"
    after, outcome = _rows(database, study), _recorded(f"outcomes/{study}.json")
    _assert_kept(before, after)
    _assert_vetoes_hold(cli, database, study)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT * FROM s3search_leases").fetchall() == []
    if study in _OTHERWISE:
        return
    if not is_alike:
        pytest.skip("this machine rounds otherwise: it polishes to other last digits, other ids")
    assert after["proposals"] == outcome["proposals"]
    assert after["evaluations"] == outcome["evaluations"]
    assert after["trials"] == outcome["trials"]
    assert [kind for kind, *_ in after["jobs"]] == [kind for kind, *_ in outcome["jobs"]]
    for nfe, file in outcome["best"].items():
        exported = tmp_path / f"{nfe}.json"
        assert cli("export", study, "--nfe", nfe, "-o", exported, *_at(database)).code == 0
        assert _different(file, json.loads(exported.read_text()), is_alike=True) == []


def _assert_kept(before: dict[str, list[list[Any]]], after: dict[str, list[list[Any]]]) -> None:
    """Nothing was lost, altered or measured twice."""
    assert len(after["evaluations"]) > len(before["evaluations"])
    for table in ("proposals", "evaluations", "jobs"):
        assert after[table][: len(before[table])] == before[table]
    assert all(trial in after["trials"] for trial in before["trials"])
    of_search = [row[0] for row in after["evaluations"] if row[1] in ("search", "race")]
    assert len(set(of_search)) == len(of_search)
    numbers = [number for number, *_ in after["trials"]]
    assert len(set(numbers)) == len(numbers) == len(of_search)


def _assert_vetoes_hold(cli: Cli, database: Path, study: str) -> None:
    """What a person rejected is neither exported nor a finalist."""
    vetoed = {
        each["schedule_id"] for each in cli("veto", study, *_at(database), "--json").json["vetoed"]
    }
    assert bool(vetoed) == study.startswith("vetoed")
    best = cli("best", study, *_at(database), "--json").json["best"]
    assert vetoed.isdisjoint(each["schedule_id"] for each in best)
    validated = {row[0] for row in _rows(database, study)["evaluations"] if row[1] == "validation"}
    assert vetoed.isdisjoint(validated)


# -- files ---------------------------------------------------------------------------------


def test_schedule_files_are_the_schedules_that_they_were(cli: Cli) -> None:
    recorded = _recorded("schedules.json")
    assert sorted(recorded) == SCHEDULES
    for name in SCHEDULES:
        file = DATA / "schedules" / f"{name}.json"
        said = cli("check", file, "--json").json
        assert (said["id"], said["nfe"]) == (recorded[name]["id"], recorded[name]["nfe"])
        shown = cli("show", file, "--json").json
        assert _different(json.loads(file.read_text()), shown, is_alike=True) == []


@pytest.mark.parametrize(
    "name", [n for n in SCHEDULES if "value" in _recorded("schedules.json")[n]]
)
def test_a_schedule_file_measures_as_it_did(cli: Cli, is_alike: bool, name: str) -> None:
    file, study = DATA / "schedules" / f"{name}.json", DATA / "studies" / "s3.toml"
    found = cli("evaluate", file, study, "--n-images", 100, "--seed", 7, "--json").json
    recorded = {**_recorded("schedules.json")[name]}
    recorded["schedule_id"] = recorded.pop("id")
    assert _different(recorded, found, is_alike=is_alike) == []


@pytest.mark.parametrize("form", ["json", "diffusers", "k-diffusion", "comfyui"])
def test_an_export_has_the_numbers_that_it_had(cli: Cli, tmp_path: Path, form: str) -> None:
    name = {"json": "schedule.json", "k-diffusion": "k_diffusion.py", "comfyui": "comfyui.py"}
    recorded = DATA / "exports" / name.get(form, form)
    output = tmp_path / name.get(form, form)
    polished = DATA / "schedules" / "polished.json"
    files = cli("export", "--schedule", polished, "-o", output, "--format", form, "--json").json
    assert files["files"]
    for file in map(Path, files["files"]):
        kept = recorded / file.name if form == "diffusers" else recorded
        if file.suffix == ".json":
            own, other = json.loads(kept.read_text()), json.loads(file.read_text())
            assert _different(own, other, is_alike=True) == []
            assert cli("check", kept, "--json").json["valid"]
        else:
            numbers = _numbers(file)
            assert _numbers(kept.with_name(f"{kept.name}.txt")) == numbers
            assert form == "diffusers" or len(numbers) > 20  # whose table is JSON


def _numbers(file: Path) -> list[float]:
    """The fractions of a Python file's tables, in a fixed order, negated ones twice; those of its
    functions are no schedule's.
    """
    found = []
    tables = [
        node
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
    ]
    for node in (inner for table in tables for inner in ast.walk(table)):
        sign, own = 1.0, node
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            sign, own = -1.0, node.operand
        if isinstance(own, ast.Constant) and isinstance(own.value, float):
            found.append(sign * own.value)
    return found
