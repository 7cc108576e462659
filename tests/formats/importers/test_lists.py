"""Lists of times: sigmas, timesteps, AYS, GITS, LD3, OSS and AutoDiffusion's logs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers import FORMATS, PROCESSES, Request, import_schedule
from s3search.formats.importers.solvers import SOLVERS
from s3search.processes import edm, flow
from s3search.schedules import published
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.schedules.spacing import End, EndRule
from s3search.solvers.plan import compile_plan
from tests.formats.importers.files import text_file

SD = PROCESSES["sd"]


def _imported(form: str, source: str, **options: Any) -> Schedule:
    return import_schedule(form, Request(source=source, **options))


def _ratios(schedule: Schedule) -> list[float]:
    process = schedule.process
    return [process.sigma(t) / process.alpha(t) for t in schedule.times]


@pytest.mark.parametrize("text", ["[80, 5.5, 0.4]", "80\n5.5\n0.4\n", "80, 5.5, 0.4, 0"])
def test_sigmas_are_read_in_every_spelling(tmp_path: Path, text: str) -> None:
    schedule = _imported("sigmas", text_file(tmp_path, text), process=edm())
    assert schedule.times == (80.0, 5.5, 0.4, 0.0)
    assert schedule.nfe == 3
    assert schedule.provenance["imported"]["solver"] == "dpmpp_2m"


def test_sigmas_of_a_vp_model_are_noise_to_signal_ratios(tmp_path: Path) -> None:
    source = text_file(tmp_path, "14.6 2.9 0.3")
    schedule = _imported("sigmas", source, process=SD, stop=True, solver="euler")
    assert _ratios(schedule) == pytest.approx([14.6, 2.9, 0.3], rel=1e-12)
    assert compile_plan(schedule).nfe == 2


def test_sigmas_of_a_flow_are_its_times(tmp_path: Path) -> None:
    schedule = _imported("sigmas", text_file(tmp_path, "1 0.7 0.2"), process=flow())
    assert schedule.times == (1.0, 0.7, 0.2, 0.0)


@pytest.mark.parametrize("solver", ["ddim", "euler", "heun", "dpmpp_2m", "dpmpp_3m", "unipc"])
def test_timesteps_run_under_every_solver(tmp_path: Path, solver: str) -> None:
    source = text_file(tmp_path, "[999, 500, 100]")
    schedule = _imported("timesteps", source, process=SD, solver=solver)
    assert schedule.times == (999.0, 500.0, 100.0, -1.0)
    assert compile_plan(schedule).nfe == schedule.nfe == (5 if solver == "heun" else 3)


_TWICE = ("dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "seeds_2")


@pytest.mark.parametrize("solver", SOLVERS[6:])
def test_timesteps_run_under_every_sampler_with_noise(tmp_path: Path, solver: str) -> None:
    source = text_file(tmp_path, "999 500 20")
    schedule = _imported("timesteps", source, process=SD, solver=f"sample_{solver}_gpu")
    calls = 5 if solver in _TWICE else 7 if solver == "seeds_3" else 3
    assert compile_plan(schedule).nfe == schedule.nfe == calls
    assert schedule.is_stochastic
    assert schedule.provenance["imported"]["solver"] == solver


def test_samplers_of_k_diffusion_are_the_published_ones(tmp_path: Path) -> None:
    source = text_file(tmp_path, "80 9 1 0.1")
    amounts = {"eta": 0.6, "s_noise": 1.01}
    made = _imported("sigmas", source, process=edm(), solver="sample_dpmpp_2m_sde", **amounts)
    steps = published.sde_steps(4, order=2, noise=published.sde_noise(0.6, 1.01))
    assert made.steps[:-1] == steps[:-1]
    ancestral = _imported("sigmas", source, process=edm(), solver="euler_ancestral", **amounts)
    assert ancestral.steps[:-1] == published.euler_ancestral_steps(3, 0.6, 1.01)
    for schedule in (made, ancestral):
        assert (schedule.times[-1], schedule.steps[-1].is_stochastic) == (0.0, False)
        assert schedule.provenance["imported"]["eta"] == 0.6


def test_ancestral_samplers_of_flows_are_comfyuis_own(tmp_path: Path) -> None:
    source = text_file(tmp_path, "1.0 0.7 0.4")
    made = _imported("sigmas", source, process=flow(), solver="euler_ancestral")
    assert made.steps[:-1] == published.flow_ancestral_steps(2)
    twice = _imported("sigmas", source, process=flow(), solver="dpmpp_2s_ancestral")
    for solver in ("dpmpp_sde", "dpmpp_2m_sde", "seeds_2", "er_sde"):
        begun = _imported("sigmas", source, process=flow(), solver=solver)
        assert (begun.times[0], begun.start.noise_scale) == (0.9999, 1.0)
        assert compile_plan(begun).noise_scale == 1.0
    assert twice == published.flow_2s_ancestral_on(flow(), made.times).changed(
        provenance=twice.provenance
    )
    with pytest.raises(InvalidSchedule, match="dpm_2_ancestral on a flow"):
        _imported("sigmas", source, process=flow(), solver="dpm_2_ancestral")


def test_timesteps_of_a_published_grid_are_the_published_solver(tmp_path: Path) -> None:
    own = published.dpmpp_2m(edm(), nfe=6, end=End(rule=EndRule.DENOISE))
    source = text_file(tmp_path, str(list(own.times)))
    assert _imported("timesteps", source, process=edm()).id == own.id


def test_ays_table_is_used_at_its_own_length(tmp_path: Path) -> None:
    schedule = _imported("ays", "sdxl")
    assert _ratios(schedule)[1:3] == pytest.approx([6.315, 3.771], rel=1e-9)
    assert schedule.times[0] <= 999.0
    assert schedule.times[-1] == -1.0
    assert schedule.nfe == 10
    assert _ratios(_imported("ays", "sd15", stop=True))[-1] == pytest.approx(0.0291, abs=2e-4)


def test_ays_is_interpolated_linearly_in_log_sigma() -> None:
    ratios = _ratios(_imported("ays", "svd", steps=20, stop=True))
    assert ratios[2] == pytest.approx(54.5)
    assert ratios[1] == pytest.approx((700.0 * 54.5) ** 0.5)
    assert len(ratios) == 21


def test_gits_list_ends_at_its_last_level(tmp_path: Path) -> None:
    log = "dp list of 3: [80.0, 3.2, 0.002]\nof 4: [80.0, 7.1, 1.1, 0.002]\n"
    source = text_file(tmp_path, log)
    assert _imported("gits", source).times == (80.0, 7.1, 1.1, 0.002)
    assert _imported("gits", source, index=0).times == (80.0, 3.2, 0.002)
    with pytest.raises(InvalidConfig, match="2 results"):
        _imported("gits", source, index=2)


_DP_RECORD = """ms_coco-ipndm-discrete-21-warmup256-dev-0.8
[0, 6, 20] [14.6146, 5.0231, 0.0292]
[0, 3, 9, 20] [14.6146, 8.8843, 2.7391, 0.0292]
ms_coco-ipndm-discrete-21-warmup256-dev-1.2
[0, 8, 20] [14.6146, 3.3319, 0.0292]
"""
_RUN_LOG = """Round 1/4 | Calculating the cost matrix...
Selected dp_list: [0, 4, 8, 12, 20]
Selected time schedule:  [80.0, 10.9836, 3.8811, 0.9652, 0.002]
"""


def test_gits_indices_are_passed_over(tmp_path: Path) -> None:
    record = text_file(tmp_path, _DP_RECORD)
    expected = [[14.6146, 5.0231, 0.0292], [14.6146, 8.8843, 2.7391, 0.0292]]
    for i, levels in enumerate(expected):
        schedule = _imported("gits", record, process=SD, index=i)
        assert _ratios(schedule) == pytest.approx(levels, rel=1e-4)
        assert "sigma / alpha" in schedule.provenance["imported"]["notes"][0]
    with pytest.raises(InvalidConfig, match="holds 3 results"):
        _imported("gits", record, process=SD, index=3)
    log = text_file(tmp_path, _RUN_LOG)
    assert _imported("gits", log, process=edm(), index=0).times[1] == 10.9836
    with pytest.raises(InvalidConfig, match="lists of indices, and none of noise levels"):
        _imported("gits", text_file(tmp_path, "[0, 4, 20]"))


_SPELLINGS = {
    "python": "sigmas = [80.0, 5.5, 0.4]",
    "numpy": "sigmas = np.array([80.0, 5.5, 0.4], dtype=np.float32)",
    "torch": "tensor([80.0000, 5.5000,  0.4000], device='cuda:0', dtype=torch.float64)",
    "yaml": "sigmas: [80, 5.5, 0.4]  # by hand",
    "object": '{"sigmas": [80, 5.5, 0.4], "timesteps": [3, 2, 1]}',
    "nested": "[[80, 5.5, 0.4]]",
    "two names": "timesteps = [3, 2, 1]\nsigmas = (\n  80, 5.5,\n  0.4,\n)\n",
    "semicolons": "80; 5.5; 0.4",
    "tuple": "(80, 5.5, 0.4)",
    "byte order mark": "\ufeff80.0, 5.5, 0.4\r\n",
    "comment": "# by GITS 2024\n80 5.5 0.4\n",
}


@pytest.mark.parametrize("kind", _SPELLINGS)
def test_lists_are_read_as_other_programs_write_them(tmp_path: Path, kind: str) -> None:
    schedule = _imported("sigmas", text_file(tmp_path, _SPELLINGS[kind]), process=edm())
    assert schedule.times == (80.0, 5.5, 0.4, 0.0)
    assert schedule.provenance["imported"]["notes"] == ("unit: sigma / alpha",)


@pytest.mark.parametrize("form", ["sigmas", "timesteps"])
def test_a_flows_thousandths_are_read_and_said(tmp_path: Path, form: str) -> None:
    source = text_file(tmp_path, "[1000, 750, 250]")
    schedule = _imported(form, source, process=flow())
    assert schedule.times == (1.0, 0.75, 0.25, 0.0)
    assert schedule.provenance["imported"]["notes"] == ("unit: thousandths of a flow's time",)
    plain = _imported(form, text_file(tmp_path, "[1, 0.75, 0.25]"), process=flow())
    assert plain.id == schedule.id


def test_a_level_printed_a_hair_above_the_noisiest_is_the_noisiest(tmp_path: Path) -> None:
    schedule = _imported("sigmas", text_file(tmp_path, "14.615 2.9"), process=SD)
    assert schedule.times[0] == 999.0
    with pytest.raises(InvalidSchedule):
        _imported("sigmas", text_file(tmp_path, "15.2 2.9"), process=SD)


def test_long_and_deep_texts_are_refused_at_once(tmp_path: Path) -> None:
    texts = {
        "many": "1 " * 20_000,
        "digits": "1" * 5000,
        "deep": "[" * 5000 + "]" * 5000,
        "names": "a = 1\n" * 20_000,
    }
    for name, text in texts.items():
        for form in ("sigmas", "gits", "autodiffusion"):
            options: dict[str, Any] = {} if form == "autodiffusion" else {"process": edm()}
            with pytest.raises((InvalidConfig, InvalidSchedule)) as caught:
                _imported(form, text_file(tmp_path, text), **options)
            assert len(str(caught.value)) < 400_000, name


def _ld3_file(folder: Path, network: list[float], *, named: bool) -> str:
    times = torch.tensor([1.0, 0.5, 0.001, *network])
    path = folder / "t_steps.pt"
    torch.save({"best_t_steps": times, "params1": torch.ones(3)} if named else times, path)
    return str(path)


@pytest.mark.parametrize("named", [True, False])
def test_ld3_times_are_continuous(tmp_path: Path, named: bool) -> None:
    source = _ld3_file(tmp_path, [1.0, 0.5, 0.001], named=named)
    schedule = _imported("ld3", source, process=SD)
    assert schedule.times == pytest.approx((999.0, 499.0, 0.0), abs=1e-4)


def test_ld3_network_times_are_refused(tmp_path: Path) -> None:
    source = _ld3_file(tmp_path, [1.0, 0.48, 0.001], named=True)
    with pytest.raises(InvalidSchedule, match="best_v1"):
        _imported("ld3", source, process=SD)


def test_oss_indices_are_those_of_the_teachers_steps(tmp_path: Path) -> None:
    source = text_file(tmp_path, "[10, 50, 100]")
    assert _imported("oss", source, steps=100).times == (1.0, 0.5, 0.1, 0.0)
    shifted = _imported("oss", source, steps=100, shift=3.0)
    assert shifted.times == pytest.approx((1.0, 0.75, 0.25, 0.0))
    with pytest.raises(InvalidConfig, match="--steps"):
        _imported("oss", source)


def test_oss_of_several_images_takes_the_median(tmp_path: Path) -> None:
    source = text_file(tmp_path, "[[10, 40, 100], [20, 60, 100], [30, 50, 100]]")
    assert _imported("oss", source, steps=100).times == (1.0, 0.5, 0.2, 0.0)
    assert _imported("oss", source, steps=100, index=0).times == (1.0, 0.4, 0.1, 0.0)


_LOG = """select ......
cand: {'timesteps': [640, 76, 901], 'skip_layers': [[3, 1], [], [7]]}, fid: 24.125
cand: {'timesteps': [640, 76, 901], 'skip_layers': [[3, 1], [], [7]]} has visited!
No.2 [901, 640, 640, 12] fid = 30.5
sampling complete
"""


def test_autodiffusion_layers_go_by_rank_of_the_timestep(tmp_path: Path) -> None:
    schedule = _imported("autodiffusion", text_file(tmp_path, _LOG, "log.txt"))
    assert schedule.times == (901.0, 640.0, 76.0, -1.0)
    # lists in ascending order of the timestep: 76 -> [3, 1], 640 -> [], 901 -> [7]
    assert schedule.model_patch == ModelPatch(skip_layers=((7,), (), (1, 3)))
    assert schedule.provenance["imported"]["fid"] == 24.125
    assert "ascending" in schedule.provenance["imported"]["notes"][0]
    assert Schedule.from_dict(schedule.to_dict()).id == schedule.id


def test_autodiffusion_runs_equal_timesteps_once_and_says_so(tmp_path: Path) -> None:
    schedule = _imported("autodiffusion", text_file(tmp_path, _LOG), index=2)
    assert schedule.times == (901.0, 640.0, 12.0, -1.0)
    assert schedule.model_patch is None
    assert "ran 3 steps" in schedule.provenance["imported"]["notes"][0]


def test_autodiffusion_log_is_never_executed(tmp_path: Path) -> None:
    line = "cand: [__import__('os').mkdir('executed')], fid: 1.0\n"
    with pytest.raises(InvalidConfig, match="holds no line"):
        _imported("autodiffusion", text_file(tmp_path, line))
    assert not Path("executed").exists()


_WRONG: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no process": ("sigmas", "1 0", {}, "--process"),
    "words": ("sigmas", "80 many", {"process": edm()}, "'many'"),
    "nothing": ("sigmas", "", {"process": edm()}, "no numbers"),
    "not a number": ("sigmas", "[80, NaN]", {"process": edm()}, "not a number"),
    "rising": ("sigmas", "1 80", {"process": edm()}, "times must fall"),
    "negative": ("sigmas", "1 -1", {"process": SD}, "0 or more"),
    "beyond the model": ("timesteps", "2000 5", {"process": SD}, "outside"),
    "unknown solver": ("sigmas", "80 1", {"process": edm(), "solver": "dppm_2m"}, "dpmpp_2m"),
    "noise of a solver without": (
        "sigmas",
        "80 1",
        {"process": edm(), "solver": "unipc", "eta": 0.5},
        "--eta: solver 'unipc' has no such amount of noise; it is for euler_ancestral",
    ),
    "eta of a noise that is a function": (
        "sigmas",
        "80 1",
        {"process": edm(), "solver": "er_sde", "eta": 0.5},
        "--eta: the noise of er_sde is a function",
    ),
    "amount of a fixed noise": (
        "sigmas",
        "80 1",
        {"process": edm(), "solver": "lcm", "s_noise": 1.1},
        "--s-noise: solver 'lcm' has no such amount",
    ),
    "useless option": ("sigmas", "80 1", {"process": edm(), "compat": True}, "has no use"),
    "one time": ("sigmas", "1", {"process": flow(), "stop": True}, "at least two"),
    "beyond numbers": ("timesteps", "1e308 0", {"process": PROCESSES["vp_cosine"]}, "make no"),
    "another's list": (
        "sigmas",
        "timesteps = [999, 1]",
        {"process": SD},
        "import it as timesteps",
    ),
    "two lists": ("sigmas", "[3, 2] [2, 1]", {"process": edm()}, "holds 2 lists"),
    "numbers beside": ("sigmas", "7 steps [3, 2]", {"process": edm()}, "beside its list"),
    "decimal commas": ("sigmas", "14,6; 2,9", {"process": edm()}, "decimal points"),
    "fractions": ("timesteps", "[1.0, 0.5, 0.1]", {"process": SD}, "fractions"),
    "no unit": ("timesteps", "[5000, 1]", {"process": flow()}, "in thousandths"),
    "names that differ": ("sigmas", "a = [1]\nb = [2]", {"process": edm()}, "'a', 'b'"),
    "no list": ("gits", "none", {}, "no list"),
    "no table": ("ays", "", {}, "no table"),
    "process of oss": ("oss", "[0.5, 1]", {"process": edm()}, "flow"),
    "process of a log": ("autodiffusion", _LOG, {"process": edm()}, "discrete"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_wrong_input_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    form, text, options, message = _WRONG[name]
    with pytest.raises((InvalidConfig, InvalidSchedule), match=message):
        _imported(form, text_file(tmp_path, text), **options)


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"ays"}))
def test_missing_files_are_refused(tmp_path: Path, form: str) -> None:
    options: dict[str, Any] = {"process": SD} if "process" in FORMATS[form].options else {}
    if form == "diffusers":
        options["steps"] = 5
    if form == "oss":
        options["process"] = flow()
    with pytest.raises(InvalidConfig, match="cannot be read"):
        _imported(form, str(tmp_path / "absent"), **options)


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(InvalidConfig, match="did you mean 'sigmas'"):
        _imported("sigma", "x")
