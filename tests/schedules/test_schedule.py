"""The schedule file: round trips, identity, its JSON Schema, and everything it refuses."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3search.errors import InvalidSchedule
from s3search.formats.exporters.schedule_json import export_dict
from s3search.processes import edm, flow, vp_linear
from s3search.rules import Adams, Prediction, Taylor
from s3search.schedules import published
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    ModelPatch,
    Schedule,
    Start,
    StartKind,
    Step,
    json_schema,
)
from s3search.solvers.plan import compile_plan
from tests.support.helpers import EXAMPLES, schedules

_SCHEMA = jsonschema.Draft202012Validator(json_schema())


def _valid() -> dict[str, Any]:
    return published.unipc(edm(), nfe=5, order=3).to_dict()


def _reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reordered(value[key]) for key in reversed(value)}
    return [_reordered(item) for item in value] if isinstance(value, list) else value


# --- what is valid ---


@EXAMPLES
@given(schedules())
def test_every_schedule_survives_json(schedule: Schedule) -> None:
    text = json.dumps(schedule.to_dict(), allow_nan=False)
    again = Schedule.from_dict(json.loads(text))
    assert again == schedule
    assert again.id == schedule.id
    assert again.nfe == schedule.nfe


@EXAMPLES
@given(schedules())
def test_json_schema_accepts_every_schedule(schedule: Schedule) -> None:
    _SCHEMA.validate(json.loads(json.dumps(schedule.to_dict())))


def test_json_schema_has_noise_in_version_2() -> None:
    """With the table of an export, whose noisy rows say "noise"."""
    _SCHEMA.validate(export_dict(published.dpmpp_2m_sde(edm(), nfe=3)))
    _SCHEMA.validate(export_dict(published.euler_ancestral(edm(), nfe=3)))
    noisy = published.euler_ancestral(edm(), nfe=3).to_dict()
    assert noisy["version"] == 2
    noisy["steps"][0]["noise"]["amount"] = "much"
    with pytest.raises(jsonschema.ValidationError):
        _SCHEMA.validate(noisy)


@EXAMPLES
@given(schedules(), st.dictionaries(st.text(max_size=5), st.integers(), max_size=2))
def test_id_ignores_field_order_and_provenance(
    schedule: Schedule, provenance: dict[str, int]
) -> None:
    wire = _reordered({**schedule.to_dict(), "provenance": provenance})
    assert Schedule.from_dict(wire).id == schedule.id


def test_id_sees_every_choice() -> None:
    base = _valid()
    ids = {Schedule.from_dict(base).id}
    changes: list[Callable[[dict[str, Any]], None]] = [
        lambda d: d["times"].__setitem__(2, d["times"][2] * 1.0001),
        lambda d: d["process"].update(sigma_max=81.0),
        lambda d: d["steps"][2]["predictor"].update(variant="bh1"),
        lambda d: d["steps"][2].update(corrector=None),
        lambda d: d.update(model_patch={"skip_scale": [0.9]}),
        lambda d: (d.update(start={"kind": "zero_x0"}), d.pop("nfe")),
    ]
    for change in changes:
        data = copy.deepcopy(base)
        change(data)
        ids.add(Schedule.from_dict(data).id)
    assert len(ids) == len(changes) + 1


def test_schedule_survives_a_file(tmp_path: Path) -> None:
    schedule = published.dpmpp_2m(flow(), nfe=6)
    path = tmp_path / "schedule.json"
    schedule.save(path)
    assert Schedule.load(path) == schedule
    assert [p.name for p in tmp_path.iterdir()] == ["schedule.json"]


def test_compiled_table_in_the_file_is_ignored() -> None:
    data = {**_valid(), "plan": {"rows": ["anything"]}}
    assert Schedule.from_dict(data) == Schedule.from_dict(_valid())


@pytest.mark.parametrize(
    ("start", "saved"),
    [("network", 0), ("zero_x0", 1), ("unit_noise", 1), ("average_x0", 1)],
)
def test_analytic_starts_save_a_call(start: str, saved: int) -> None:
    image = [[[0.0]]] if start == "average_x0" else None
    data = {**_valid(), "start": {"kind": start, "image": image}, "nfe": 5 - saved}
    assert Schedule.from_dict(data).nfe == 5 - saved


def _euler_steps(n: int, last: CorrectorKind | None, inner: CorrectorKind | None) -> Schedule:
    def step(kind: CorrectorKind | None) -> Step:
        rule = Adams(start=-2, points=(-2, -1))
        corrector = None if kind is None else Corrector(kind=kind, rule=rule)
        return Step(predictor=Adams(), corrector=corrector)

    steps = [step(inner)] * (n - 1) + [step(last)]
    return Schedule(process=edm(), times=[80.0 / 2**i for i in range(n + 1)], steps=steps)


def test_nfe_counts_calls_as_the_loop_makes_them() -> None:
    pseudo, implicit = CorrectorKind.PSEUDO, CorrectorKind.IMPLICIT
    assert _euler_steps(4, None, None).nfe == 4
    assert _euler_steps(4, None, pseudo).nfe == 4
    assert _euler_steps(4, None, implicit).nfe == 7
    assert _euler_steps(4, pseudo, None).nfe == 5


# --- what is refused, and where ---


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last, value = path

    def change(data: dict[str, Any]) -> None:
        at: Any = data
        for key in parents:
            at = at[key]
        at[last] = value

    return change


_REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown key": (_set("stepz", []), r"stepz: unknown key; did you mean 'steps'\?"),
    "unknown key inside": (_set("start", "knd", "network"), r"start\.knd: unknown key"),
    "unknown key in a rule": (
        _set("steps", 1, "predictor", "ordr", 2),
        r"steps\[1\]\.predictor\.ordr: unknown key",
    ),
    "format": (_set("format", "s3search.plan"), "format: expected 's3search.schedule'"),
    "no format": (lambda d: d.pop("format"), "format: .*found None"),
    "version": (_set("version", 3), "version: this release reads versions 1 to 2, found 3"),
    "no times": (lambda d: d.pop("times"), "times"),
    "no process": (lambda d: d.pop("process"), "process"),
    "process": (_set("process", {"type": "vpp"}), "process"),
    "process field": (_set("process", "sigma_min", -1), r"process\.sigma_min"),
    "times not a list": (_set("times", "80"), "times"),
    "time not a number": (_set("times", 2, "soon"), r"times\[2\]"),
    "time null": (_set("times", 2, None), r"times\[2\]"),
    "time nan": (_set("times", 2, math.nan), r"times\[2\]"),
    "time infinite": (_set("times", 0, math.inf), r"times\[0\]"),
    "time negative": (_set("times", 5, -1.0), r"times\[5\]: -1\.0 is not a noise level"),
    "times rise": (_set("times", 2, 79.9), r"times\[2\]: times must fall"),
    "clean in between": (
        lambda d: d.update(times=[80.0, 10.0, 5.0, 1.0, 0.0, -0.0]),
        r"times\[",
    ),
    "too few times": (lambda d: d["times"].pop(), "times: 5 steps need 6 times, found 5"),
    "too few steps": (lambda d: d["steps"].pop(), "times: 4 steps need 5 times, found 6"),
    "no steps": (_set("steps", []), "steps"),
    "unknown rule": (_set("steps", 0, "predictor", {"rule": "tayler"}), r"steps\[0\]\.predictor"),
    "no rule": (_set("steps", 0, "predictor", {}), r"steps\[0\]\.predictor"),
    "step null": (_set("steps", 1, None), r"steps\[1\]"),
    "prediction": (
        _set("steps", 1, "predictor", "prediction", "velocity"),
        r"steps\[1\]\.predictor\.prediction",
    ),
    "point missing": (
        _set("steps", 1, "predictor", "points", [-7]),
        r"steps\[1\]\.predictor\.points: point -7 does not exist, the history holds 2",
    ),
    "point twice": (
        _set("steps", 3, "predictor", "points", [-2, -2]),
        r"steps\[3\]\.predictor\.points: .*twice",
    ),
    "point is the start": (
        _set("steps", 3, "predictor", "points", [-1]),
        r"steps\[3\]\.predictor\.points: .*start of the step",
    ),
    "point positive": (_set("steps", 3, "predictor", "points", [0]), r"steps\[3\]"),
    "order too high for the history": (
        _set("steps", 1, "predictor", {"rule": "taylor", "prediction": "data", "order": 3}),
        r"steps\[1\]\.predictor\.order: order 3 needs 3 evaluated points, only 2 exist",
    ),
    "order too high": (
        _set("steps", 1, "predictor", {"rule": "taylor", "prediction": "data", "order": 9}),
        r"steps\[1\]\.predictor\.order",
    ),
    "order not whole": (
        _set("steps", 1, "predictor", {"rule": "taylor", "prediction": "data", "order": 1.5}),
        r"steps\[1\]\.predictor\.order",
    ),
    "corrector kind": (
        _set("steps", 1, "corrector", "kind", "explicit"),
        r"steps\[1\]\.corrector\.kind",
    ),
    "corrector point": (
        _set("steps", 1, "corrector", "rule", "points", [-9]),
        r"steps\[1\]\.corrector\.rule\.points",
    ),
    "start kind": (_set("start", "kind", "zero"), r"start\.kind"),
    "start without its image": (_set("start", "kind", "average_x0"), "start.*needs image"),
    "start with an image": (_set("start", "image", [[[0.0]]]), "start.*takes no image"),
    "ragged image": (
        _set("start", {"kind": "average_x0", "image": [[[0.0], [0.0, 1.0]]]}),
        "start.*rectangular",
    ),
    "nfe": (_set("nfe", 4), "nfe: the steps make 5 network calls, found 4"),
    "model patch": (_set("model_patch", {"skip": [1.0]}), r"model_patch\.skip: unknown key"),
    "model patch nan": (_set("model_patch", {"skip_scale": [math.nan]}), "model_patch"),
}


@pytest.mark.parametrize(("change", "message"), _REFUSED.values(), ids=_REFUSED.keys())
def test_wrong_field_is_refused_with_its_path(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = json.loads(json.dumps(_valid()))
    change(data)
    with pytest.raises(InvalidSchedule, match="^" + message):
        Schedule.from_dict(data)


_BEYOND_SCHEMA = {  # relations between fields, which a JSON Schema cannot state
    "times rise", "time negative", "clean in between", "too few times", "too few steps", "nfe",
    "point missing", "point twice", "point is the start", "point positive",
    "order too high for the history", "corrector point", "start without its image",
    "start with an image", "ragged image", "time nan", "time infinite", "model patch nan",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(_REFUSED) - _BEYOND_SCHEMA))
def test_json_schema_rejects_what_it_can(name: str) -> None:
    data = json.loads(json.dumps(_valid()))
    _REFUSED[name][0](data)
    assert not _SCHEMA.is_valid(data)


def test_json_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("data", [None, [], "schedule", 3])
def test_anything_but_an_object_is_refused(data: Any) -> None:
    with pytest.raises(InvalidSchedule, match="expected a JSON object"):
        Schedule.from_dict(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"format": ', "not valid JSON"),
        (b'{"times": NaN}', "NaN is not a number"),
        (b'{"times": -Infinity}', "-Infinity is not a number"),
        (b"\x80\x02}q\x00\xff", "cannot be read"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1, 2]", "expected a JSON object, found list"),
        (b"{}", "format"),
    ],
)
def test_files_that_are_no_schedule_are_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "schedule.json"
    path.write_bytes(content)
    with pytest.raises(InvalidSchedule, match=f"^{re.escape(str(path))}: .*{message}"):
        Schedule.load(path)


def test_directories_and_missing_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.json"):
        with pytest.raises(InvalidSchedule, match="cannot be read"):
            Schedule.load(path)


def test_data_in_the_place_of_a_path_are_refused() -> None:
    with pytest.raises(InvalidSchedule, match=r"found dict; Schedule\.from_dict reads data"):
        Schedule.load({"version": 1})  # type: ignore[arg-type]


def test_corrector_at_the_clean_end_is_refused() -> None:
    corrected = _euler_steps(2, CorrectorKind.PSEUDO, None)
    with pytest.raises(InvalidSchedule, match=r"^steps\[1\]\.corrector: .*clean end"):
        Schedule(process=edm(), times=[80.0, 1.0, 0.0], steps=corrected.steps)


def test_implicit_corrector_on_the_last_step_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match=r"^steps\[1\]\.corrector\.kind"):
        _euler_steps(2, CorrectorKind.IMPLICIT, None)


def test_high_order_step_to_the_clean_end_is_refused() -> None:
    steps = [Step(predictor=Taylor(prediction=Prediction.DATA, order=o)) for o in (1, 2)]
    with pytest.raises(InvalidSchedule, match=r"^steps\[1\]\.predictor\.order: .*clean end"):
        Schedule(process=vp_linear(), times=[1.0, 0.5, 0.0], steps=steps)


def test_unit_noise_start_needs_signal() -> None:
    steps = [Step(predictor=Taylor(prediction=Prediction.DATA, order=1))]
    with pytest.raises(InvalidSchedule, match=r"^start\.kind: .*alpha > 0"):
        Schedule(
            process=flow(), times=[1.0, 0.0], steps=steps, start=Start(kind=StartKind.UNIT_NOISE)
        )


def test_model_patch_is_kept() -> None:
    schedule = Schedule(
        process=edm(),
        times=[80.0, 0.0],
        steps=[Step(predictor=Adams())],
        model_patch=ModelPatch(skip_scale=(0.9, 1.0)),
    )
    assert Schedule.from_dict(schedule.to_dict()).model_patch == schedule.model_patch


def test_skipped_layers_are_kept_and_need_a_list_per_step() -> None:
    fields = {"process": edm(), "times": [80.0, 3.0, 0.0], "steps": [Step(predictor=Adams())] * 2}
    schedule = Schedule(**fields, model_patch=ModelPatch(skip_layers=((3, 7), ())))
    assert Schedule.from_dict(schedule.to_dict()).model_patch == schedule.model_patch
    with pytest.raises(InvalidSchedule, match=r"skip_layers: 2 steps need 2 lists"):
        Schedule(**fields, model_patch=ModelPatch(skip_layers=((3,),)))


def test_guidance_is_kept_and_needs_a_scale_per_call() -> None:
    plain = published.heun(edm(), nfe=5)
    guided = published.with_guidance(plain, [1, 3.0, 2.5, 2.5, 1])
    assert guided.id != plain.id
    assert Schedule.from_dict(guided.to_dict()) == guided
    assert guided.model_patch == ModelPatch(guidance_scale=(1.0, 3.0, 2.5, 2.5, 1.0))
    with pytest.raises(InvalidSchedule, match=r"guidance_scale: 5 network calls need 5 scales"):
        published.with_guidance(plain, [1.0] * 3)
    with pytest.raises(InvalidSchedule, match=r"guidance_scale"):
        published.with_guidance(plain, [0.5] * 5)


def test_guidance_in_an_interval_is_that_of_the_calls_in_it() -> None:
    plain = published.ddim(edm(), nfe=3)
    times = compile_plan(plain).network_times
    guided = published.guided_in_interval(plain, times, 4.0, (times[1], times[1]))
    assert guided.model_patch == ModelPatch(guidance_scale=(1.0, 4.0, 1.0))


def test_absent_skipped_layers_leave_older_ids_alone() -> None:
    assert ModelPatch(skip_scale=(0.9,)).model_dump(mode="json") == {"skip_scale": [0.9]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (("times", 2), "5.0"),
        (("times", 2), True),
        (("steps", 1, "predictor", "start"), "-1"),
        (("version",), True),
    ],
)
def test_numbers_are_numbers(field: tuple[Any, ...], value: Any) -> None:
    """A string or a truth value is no number, even where Python would take it for one."""
    data = json.loads(json.dumps(_valid()))
    _set(*field, value)(data)
    with pytest.raises(InvalidSchedule):
        Schedule.from_dict(data)


def test_zero_has_one_sign() -> None:
    """-0.0 and 0.0 are the same time, so they give the same schedule."""
    data = published.heun(edm(), nfe=5).to_dict()
    negative = json.loads(json.dumps(data))
    negative["times"][-1] = -0.0
    assert Schedule.from_dict(negative).id == Schedule.from_dict(data).id


def test_times_that_differ_by_rounding_alone_are_refused() -> None:
    data = _valid()
    data["times"][2] = data["times"][1] * (1 - 1e-15)
    with pytest.raises(InvalidSchedule, match=r"times\[2\]: .* but for rounding"):
        Schedule.from_dict(data)


def test_a_nested_unknown_key_names_the_nearest_right_one() -> None:
    data = json.loads(json.dumps(_valid()))
    data["steps"][1]["predictor"]["ordr"] = 2
    message = r"steps\[1\].*ordr: unknown key; did you mean 'order'"
    with pytest.raises(InvalidSchedule, match=message):
        Schedule.from_dict(data)
