"""How every pipeline of the installed diffusers calls its scheduler, and whether a schedule can be
replayed there.

The tables are read from the installed package and compared with those here: a new version that
adds a way of calling fails until somebody has looked at it.
"""

import ast
import inspect
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)

import diffusers

from s3search.errors import InvalidSchedule
from s3search.integrations.diffusers import S3Scheduler
from s3search.models.diffusers.pipeline_sigmas import (
    NOT_TO_FLOW_SIGMAS,
    PASSED_BY,
    PASSES_ANOTHER,
    Passed,
    is_passed,
    sigmas_passed,
)
from s3search.models.diffusers.scheduler_config import process_of
from s3search.models.diffusers.scheduler_keys import KEYS
from s3search.processes import flow
from s3search.schedules import published
from s3search.schedules.published import ddim_steps, on_times

PACKAGE = Path(diffusers.__file__).parent
_FOLDERS = ("pipelines", "modular_pipelines")

ANSWERS = "answers"  # the scheduler here has it and gives it the meaning it has there
IGNORES = "does not count"  # a pipeline may set or read it, and a schedule is the same
REFUSES = "refuses"  # an error says so
ABSENT = "has not"  # of schedulers that only their own pipelines run: AttributeError

MEMBERS = {
    "__class__": ANSWERS,
    "_internal_dict": ANSWERS,
    "add_noise": ANSWERS,
    "config": ANSWERS,
    "init_noise_sigma": ANSWERS,
    "num_inference_steps": ANSWERS,
    "order": ANSWERS,
    "register_to_config": ANSWERS,
    "scale_model_input": ANSWERS,
    "scale_noise": ANSWERS,
    "set_begin_index": ANSWERS,
    "set_timesteps": ANSWERS,
    "sigmas": ANSWERS,
    "step": ANSWERS,
    "step_index": ANSWERS,
    "timesteps": ANSWERS,
    "_step_index": ANSWERS,
    "__dict__": IGNORES,
    "_get_conditioning_c_in": ABSENT,
    "_get_variance": ABSENT,
    "_init_step_index": ABSENT,
    "_is_ode_scheduler": ABSENT,
    "_sigma_to_alpha_sigma_t": ABSENT,
    "add_noise_to_input": ABSENT,
    "alphas": ABSENT,
    "alphas_cumprod": ABSENT,
    "batch_step_no_noise": ABSENT,
    "betas": ABSENT,
    "check_block_should_continue": ABSENT,
    "check_eos_finished": ABSENT,
    "convert_model_output": ABSENT,
    "dpm_solver_first_order_update": ABSENT,
    "eta": ABSENT,
    "final_alpha_cumprod": ABSENT,
    "last_sample": ABSENT,
    "lower_order_nums": ABSENT,
    "model_outputs": ABSENT,
    "ori_start_sigmas": ABSENT,
    "schedule": ABSENT,
    "set_sigmas": ABSENT,
    "step_correct": ABSENT,
    "step_pred": ABSENT,
    "undo_step": ABSENT,
}
"""Everything that a pipeline asks of a scheduler, by name."""

SET_TIMESTEPS = {
    "1": ANSWERS,
    "1 **": ANSWERS,
    "1 ** device": ANSWERS,
    "1 device": ANSWERS,
    "0 device num_inference_steps": ANSWERS,
    "0 device sigmas": ANSWERS,  # a pipeline's own levels, or a user's, which must be ours
    "0 ** device sigmas": ANSWERS,
    "0 device mu sigmas": ANSWERS,
    "1 device sigmas": ANSWERS,
    "1 device mu sigmas": ANSWERS,
    "0 device timesteps": ANSWERS,  # a user's, which must be the schedule's
    "0 ** device timesteps": ANSWERS,
    "0 ** device sigmas timesteps": ANSWERS,  # CogView4 and GLM-Image pass both by themselves
    "1 device sigmas timesteps": REFUSES,  # AnyFlow: a flow map
    "1 block_length device": REFUSES,  # tokens
    "1 device start_time": REFUSES,  # proteins
    "2 device is_amplify_first_chunk mu": REFUSES,  # Helios' stages
    "2 device mu": REFUSES,
    "3": REFUSES,  # aMUSEd's temperature: tokens
    "4": REFUSES,  # RePaint's jumps
}
"""The number of positional arguments of `set_timesteps`, and the names of the others."""

STEP = {
    "3": ANSWERS,
    "3 **": ANSWERS,
    "3 ** return_dict": ANSWERS,
    "3 generator": ANSWERS,
    "3 generator return_dict": ANSWERS,
    "3 return_dict": ANSWERS,
    "3 eta generator use_clipped_model_output": ANSWERS,
    "3 ** generator return_dict": ANSWERS,
    "0 generator model_output sample timestep": ANSWERS,
    "0 eta generator model_output sample timestep": ANSWERS,
    "1 sample timestep": ANSWERS,
    "1 generator sample timestep": ANSWERS,
    "1 ** return_dict sample timestep": ANSWERS,
    "0 ** model_output return_dict sample timestep": ANSWERS,
    "3 per_token_timesteps return_dict": REFUSES,  # LTX condition: a time for every token
    "3 pred_original_sample return_dict": REFUSES,  # Cosmos: has mixed its own image in
    "3 ** return_dict variance_noise": REFUSES,  # LEdits++ puts noise back
    "3 ** variance_noise": REFUSES,
    "3 generator prev_timestep": REFUSES,  # UnCLIP says where to go
    "1 generator prev_timestep sample timestep": REFUSES,
    "0 generator model_output sample starting_mask_ratio timestep": REFUSES,
    "0 editing_threshold generator mask_token_id minimal_topk model_output prompt_mask "
    "return_dict sample sampling_method temperature threshold timestep top_k top_p": REFUSES,
    "3 all_timesteps cur_sampling_step dmd_noisy_tensor dmd_sigmas dmd_timesteps generator "
    "return_dict": REFUSES,
    "4": REFUSES,
    "4 generator": REFUSES,
    "5 ** return_dict": REFUSES,  # CogVideoX, to its own DPM solver alone
    "6": REFUSES,
}
"""The same of `step`; ``**`` are `eta` and `generator` where `step` takes them."""

OTHERS = {
    "scale_model_input": {"2"},
    "scale_noise": {"2", "3"},
    "add_noise": {
        "0 noise original_samples timesteps",
        "1 noise timesteps",
        "2 generator",  # aMUSEd: tokens
        "2 timesteps",
        "3",
    },
    "set_begin_index": {"1"},
}
"""The same of the calls beside them."""

CONFIG_READS = {
    "block_length",
    "gamma",
    "get",
    "mask_token_id",
}
"""Keys of a config that pipelines read and that no scheduler here has (`get` reads one by name);
all others are those that the replayed config keeps."""

PASSED = {
    "np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)": Passed.TO_ONE_STEP,
    "np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps)": Passed.TO_ONE_STEP,
    "torch.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps, "
    "dtype=torch.float32).tolist()": Passed.TO_ONE_STEP,
    "get_default_z_image_sigmas(num_inference_steps)": Passed.TO_ONE_STEP,
    "np.linspace(1.0, 0.0, num_inference_steps + 1)[:-1]": Passed.TO_ZERO,
    "np.linspace(1.0, 0, num_inference_steps + 1)[:-1]": Passed.TO_ZERO,
    "np.linspace(1, 0, num_inference_steps + 1)[:num_inference_steps]": Passed.TO_ZERO,
    "torch.linspace(1.0, 0.0, num_inference_steps + 1)": Passed.TO_ZERO,
    "timesteps / self.scheduler.config.num_train_timesteps": Passed.WHOLE_TIMES,
}
"""The expressions whose values pipelines pass as levels."""


@dataclass
class _Survey:
    members: set[str]
    calls: dict[str, set[str]]
    config_reads: set[str]
    passed: dict[str, set[str]]  # by a pipeline's class: the expressions of what it passes


@cache
def _survey() -> _Survey:
    """One walk over all pipelines."""
    found = _Survey(set(), defaultdict(set), set(), {})
    for folder in _FOLDERS:
        for file in sorted((PACKAGE / folder).rglob("*.py")):
            text = file.read_text()
            if "scheduler" not in text:
                continue
            tree = ast.parse(text)
            for node in ast.walk(tree):
                _look_at(node, found)
            if folder == "pipelines":
                found.passed.update(_levels_of_pipelines(tree))
    return found


def _look_at(node: ast.AST, found: _Survey) -> None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if _is_scheduler(node.func.value):
            found.calls[node.func.attr].add(_shape(node))
    elif isinstance(node, ast.Attribute):
        owner = node.value
        if _is_scheduler(owner):
            found.members.add(node.attr)
        elif getattr(owner, "attr", "") == "config" and _is_scheduler(owner.value):
            found.config_reads.add(node.attr)


def _is_scheduler(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return str(name) == "scheduler" or str(name).endswith("_scheduler")


def _shape(call: ast.Call) -> str:
    names = sorted(keyword.arg or "**" for keyword in call.keywords)
    return " ".join([str(len(call.args)), *names])


def _levels_of_pipelines(tree: ast.Module) -> dict[str, set[str]]:
    """Pipeline class -> the expressions that its call assigns to what it passes as ``sigmas``."""
    found = {}
    for node in tree.body:
        calls = [own for own in getattr(node, "body", ()) if _name(own) == "__call__"]
        if isinstance(node, ast.ClassDef) and calls and _passes_sigmas(calls[0]):
            found[node.name] = _assigned(calls[0])
    return {name: own for name, own in found.items() if own}


def _name(node: ast.AST) -> str:
    return str(getattr(node, "name", ""))


def _passes_sigmas(call: ast.AST) -> bool:
    for node in ast.walk(call):
        if isinstance(node, ast.Call):
            name = str(getattr(node.func, "attr", getattr(node.func, "id", "")))
            if name.endswith(("set_timesteps", "retrieve_timesteps")):
                given = [*node.args, *(keyword.value for keyword in node.keywords)]
                if any(ast.unparse(own).startswith("sigmas") for own in given):
                    return True
    return False


def _assigned(call: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(call):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "sigmas":
            value = node.value
            if isinstance(value, ast.IfExp):  # ``x if sigmas is None else sigmas``
                value = value.orelse if ast.unparse(value.body) == "None" else value.body
            found.add(ast.unparse(value))
    return found


def test_what_pipelines_ask_of_a_scheduler_is_known() -> None:
    assert _survey().members == set(MEMBERS)
    own = S3Scheduler.from_schedule(published.ddim(flow(), nfe=2), {"shift": 1.0})
    assert {name for name in MEMBERS if not hasattr(own, name)} == {
        name for name, fate in MEMBERS.items() if fate is ABSENT
    }


def test_how_pipelines_call_a_scheduler_is_known() -> None:
    calls = _survey().calls
    assert calls["set_timesteps"] == set(SET_TIMESTEPS)
    assert calls["step"] == set(STEP)
    for name, shapes in OTHERS.items():
        assert calls[name] == shapes, name


@pytest.mark.parametrize("shape", [own for own, fate in STEP.items() if fate is ANSWERS])
def test_step_takes_every_call_that_is_answered(shape: str) -> None:
    count, *names = shape.split()
    inspect.signature(S3Scheduler.step).bind(
        *range(1 + int(count)), **dict.fromkeys(n for n in names if n != "**")
    )


def test_arguments_that_change_a_step_are_refused_by_name() -> None:
    own = S3Scheduler.from_schedule(published.ddim(flow(), nfe=2), {"shift": 1.0})
    x = torch.zeros(1, 2)
    for shape in (shape for shape, fate in STEP.items() if fate is REFUSES and shape[0] == "3"):
        names = {*shape.split()[1:]} - {"**", "generator", "return_dict"}
        with pytest.raises(InvalidSchedule, match="this pipeline passes"):
            own.step(x, own.timesteps[0], x, **dict.fromkeys(names, 1.0))


def test_the_config_keys_that_pipelines_read_are_known() -> None:
    assert _survey().config_reads - set(KEYS) == CONFIG_READS


def test_what_pipelines_pass_by_themselves_is_known_for_each() -> None:
    found = _survey().passed
    passed = {name: own for own, names in PASSED_BY.items() for name in names}
    for name, expressions in found.items():
        kinds = {PASSED[each] for each in expressions if each in PASSED}
        if expressions <= {*PASSED, "None"} and len(kinds) == 1:
            assert {passed[name]} == kinds, name
            assert ("None" in expressions) == (name in NOT_TO_FLOW_SIGMAS), name
        else:
            assert name in PASSES_ANOTHER or expressions <= _OF_A_USER, (name, expressions)
    assert set(passed) <= set(found)


_OF_A_USER = {"np.array(sigmas)", "[float(sigma) for sigma in sigmas]", "[*sigmas, 0.0]"}
"""What pipelines make of the levels that a user gave, and nothing else."""


@pytest.mark.parametrize("passed", list(Passed))
@pytest.mark.parametrize("n", [1, 2, 4, 20])
def test_levels_of_a_pipeline_are_told_from_those_of_a_user(passed: Passed, n: int) -> None:
    times = np.linspace(1.0, 0.1, n).tolist()
    schedule = on_times(flow(), (*times, 0.0), ddim_steps(n))
    own = S3Scheduler.from_schedule(schedule, {"shift": 3.0})
    levels = np.array(sigmas_passed(passed, n), dtype=np.float32)
    assert is_passed(levels.tolist())
    if passed is Passed.WHOLE_TIMES:
        own.set_timesteps(timesteps=levels * 1000, sigmas=levels, mu=1.2)
    else:
        own.set_timesteps(sigmas=levels, mu=1.2)
    assert own.timesteps.tolist() == pytest.approx([1000 * t for t in times], rel=1e-5)
    own.set_timesteps(sigmas=times)  # a user's, and the schedule's
    if n > 1:
        asked = [*times[:-1], times[-1] + 0.05]
        with pytest.raises(InvalidSchedule, match=r"sigmas: .* were asked, the schedule has"):
            own.set_timesteps(sigmas=asked)


def test_a_users_sigmas_on_a_model_of_betas_are_the_schedules_or_refused() -> None:
    config = diffusers.EulerDiscreteScheduler().config
    own = S3Scheduler.from_schedule(published.ddim(process_of(config), nfe=4), config)
    own.set_timesteps(sigmas=own.sigmas[:-1].tolist())
    with pytest.raises(InvalidSchedule, match=r"sigmas: .* leave them out"):
        own.set_timesteps(sigmas=[14.6, 6.3, 3.1, 0.7])
    with pytest.raises(InvalidSchedule, match=r"sigmas: .* leave them out"):
        own.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
