"""Which scheduler classes are known, what their configs say, and the one reader of their files."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)

import diffusers

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers import Request, import_schedule
from s3search.integrations.diffusers import S3Scheduler
from s3search.models.diffusers.scheduler_classes import (
    CLASSES,
    Fate,
    Kind,
    values_of,
)
from s3search.models.diffusers.scheduler_config import flow_shift, model_of, process_of
from s3search.models.diffusers.scheduler_file import read_scheduler_file
from s3search.models.diffusers.scheduler_keys import ALSO_READ, KEYS
from s3search.processes import VpDiscrete

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

_SCHEDULERS = Path(diffusers.__file__).parent / "schedulers"
_DOCS = Path(__file__).parents[3] / "docs" / "importers.md"
_SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def _installed() -> dict[str, dict[str, Any]]:
    """Every scheduler class of the installed diffusers: its constructor's defaults."""
    found = {}
    for file in sorted(_SCHEDULERS.rglob("scheduling_*.py")):
        for node in ast.parse(file.read_text()).body:
            bases = [ast.unparse(base) for base in getattr(node, "bases", ())]
            if isinstance(node, ast.ClassDef) and "SchedulerMixin" in bases:
                found[node.name] = _defaults(node)
    return found


def _defaults(node: ast.ClassDef) -> dict[str, Any]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            names = [argument.arg for argument in item.args.args[1:]]
            values = [ast.unparse(value) for value in item.args.defaults]
            return dict(zip(names[-len(values) :], map(_value, values), strict=True))
    return {}


def _value(text: str) -> Any:
    if text == "-float('inf')":
        return -float("inf")
    try:
        found = ast.literal_eval(text)
    except ValueError:
        return text
    return tuple(found) if isinstance(found, list) else found


INSTALLED = _installed()


def test_every_class_of_the_installed_diffusers_is_known_and_no_other() -> None:
    assert len(INSTALLED) > 40
    assert set(CLASSES) == set(INSTALLED)


@pytest.mark.parametrize(
    "name", [name for name, own in CLASSES.items() if own.kind is not Kind.OTHER]
)
def test_keys_and_defaults_are_those_of_the_constructor(name: str) -> None:
    assert dict(CLASSES[name].defaults) == INSTALLED[name]


def test_every_key_of_a_readable_class_has_a_meaning_and_no_other_has() -> None:
    readable = [own.defaults for own in CLASSES.values() if own.kind is not Kind.OTHER]
    assert set(KEYS) == {*ALSO_READ}.union(*readable)


def test_the_documentation_lists_every_class_with_its_fate() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", _DOCS.read_text(), re.MULTILINE)
    listed = {name: (fate, reason) for name, fate, reason in rows if name in CLASSES}
    assert list(listed) == list(CLASSES)
    for name, own in CLASSES.items():
        fate, reason = listed[name]
        assert fate == own.fate.value, name
        assert own.fate is Fate.IMPORTED or reason == own.reason, name


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_a_shifted_signal_to_noise_ratio_is_read(scale: float, zero_snr: bool) -> None:
    own = diffusers.CogVideoXDDIMScheduler(
        **_SD, snr_shift_scale=scale, rescale_betas_zero_snr=zero_snr
    )
    process = model_of(own.config).process
    assert isinstance(process, VpDiscrete)
    table = own.alphas_cumprod.double().sqrt().tolist()
    found = [process.alpha(float(i)) for i in range(1000)]
    assert found[:-1] == pytest.approx(table[:-1], rel=2e-4, abs=1e-5)


def test_a_key_that_nobody_knows_is_refused_by_its_name() -> None:
    for name in ("DDIMScheduler", None):
        with pytest.raises(
            InvalidConfig, match=r"snr_shift_scal: .*did you mean 'snr_shift_scale'"
        ):
            process_of({**_SD, "snr_shift_scal": 3.0}, name)


def test_a_key_of_another_class_counts_as_little_as_in_diffusers() -> None:
    kept = {**_SD, "rescale_betas_zero_snr": True, "snr_shift_scale": 3.0, "shift": 5.0}
    own = diffusers.PNDMScheduler.from_config(kept)
    process = process_of(kept, "PNDMScheduler")
    assert process.alpha(500.0) == pytest.approx(float(own.alphas_cumprod[500]) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("name", ["MochiScheduler", "RectifiedFlowScheduler"])
def test_a_class_that_nobody_taught_is_no_flow_for_its_shift(name: str) -> None:
    with pytest.raises(InvalidConfig, match=f"_class_name: '{name}' is not known"):
        model_of({"_class_name": name, "shift": 3.0, "num_train_timesteps": 1000})
    with pytest.raises(InvalidSchedule, match="MiniMaxH3Scheduler: knows its levels"):
        model_of({"_class_name": "MiniMaxH3Scheduler", "shift": 12.0})


def test_keys_that_fit_several_classes_that_differ_ask_for_the_name() -> None:
    with pytest.raises(InvalidConfig, match="_class_name: the config has none"):
        process_of({"num_train_timesteps": 1000})
    with pytest.raises(InvalidConfig, match="are of no one class"):
        process_of({"shift": 3.0, "beta_start": 0.1})


def test_a_training_table_without_end_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match=r"num_train_timesteps: .*found 1000000000000"):
        process_of({**_SD, "num_train_timesteps": 10**12}, "DDIMScheduler")


def test_an_answer_in_velocities_needs_a_flows_levels() -> None:
    config = {**_SD, "prediction_type": "flow_prediction"}
    with pytest.raises(InvalidSchedule, match="needs use_flow_sigmas"):
        model_of(config, "UniPCMultistepScheduler")
    assert model_of({**config, "use_flow_sigmas": True}, "UniPCMultistepScheduler").n_times == 1000


def test_a_shift_is_of_the_key_that_the_class_reads() -> None:
    wan = {"use_flow_sigmas": True, "flow_shift": 5.0, "prediction_type": "flow_prediction"}
    assert flow_shift(wan, 256, "UniPCMultistepScheduler") == 5.0
    assert flow_shift({"shift": 3.0}, 256, "FlowMatchEulerDiscreteScheduler") == 3.0


@pytest.mark.parametrize("name", [n for n, o in CLASSES.items() if o.fate is Fate.IMPORTED])
def test_a_config_that_says_nothing_is_the_constructors(name: str) -> None:
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="this scheduler needs torchsde")
    full = dict(getattr(diffusers, name)().config)
    read, silent = values_of(name, full), values_of(name, {})
    assert {k: v or None for k, v in read.items()} == {k: v or None for k, v in silent.items()}
    assert model_of({}, name) == model_of(full, name) == model_of(full)


_OLDER = {  # written before sigma_schedule was a key
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "_diffusers_version": "0.27.0.dev0",
    "algorithm_type": "dpmsolver++",
    "final_sigmas_type": "zero",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
    "solver_order": 2,
    "solver_type": "midpoint",
}


def test_a_config_older_than_a_key_is_read_the_same_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "playground.json"
    file.write_text(json.dumps(_OLDER))
    schedule = import_schedule("diffusers", Request(source=str(file), steps=5))
    own = diffusers.EDMDPMSolverMultistepScheduler.from_config(_OLDER)
    own.set_timesteps(5)
    assert schedule.times == pytest.approx(own.sigmas.tolist(), rel=1e-5)
    assert S3Scheduler.from_schedule(schedule, _OLDER).num_steps == 5


# ---- files


def _pipeline(folder: Path, named: Any, config: dict[str, Any]) -> Path:
    (folder / "scheduler").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"scheduler": named}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return folder


def test_the_index_of_a_pipeline_names_the_class(tmp_path: Path) -> None:
    config = {"_class_name": "PNDMScheduler", **_SD}
    folder = _pipeline(tmp_path / "pipe", ["diffusers", "EulerDiscreteScheduler"], config)
    for source in (folder, folder / "scheduler", folder / "scheduler" / "scheduler_config.json"):
        made = import_schedule("diffusers", Request(source=str(source), steps=4))
        origin = made.provenance["imported"]
        assert origin["scheduler"] == "EulerDiscreteScheduler"
        assert "the file's own _class_name is 'PNDMScheduler'" in origin["notes"][0]
    alone = tmp_path / "scheduler_config.json"
    alone.write_text(json.dumps(config))
    assert read_scheduler_file(alone).class_name == "PNDMScheduler"


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        (["mine", "MyScheduler"], "_class_name: 'MyScheduler' is not known"),
        ("EulerDiscreteScheduler", "scheduler: needs a library and a class"),
    ],
)
def test_an_index_that_names_no_known_class_is_refused(
    tmp_path: Path, named: Any, problem: str
) -> None:
    folder = _pipeline(tmp_path / "p", named, {"_class_name": "EulerDiscreteScheduler", **_SD})
    with pytest.raises(InvalidConfig, match=problem):
        import_schedule("diffusers", Request(source=str(folder), steps=4))


def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path: Path) -> None:
    file = tmp_path / "scheduler_config.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"_class_name": "DDIMScheduler"}).encode())
    assert import_schedule("diffusers", Request(source=str(file), steps=5)).nfe == 5
    file.write_text("{}", encoding="utf-16")
    with pytest.raises(InvalidConfig, match=r"its text is UTF-16.*save it as UTF-8"):
        read_scheduler_file(file)
