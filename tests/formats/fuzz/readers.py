"""Every reader of files from outside, with the files that it is fuzzed with.

A reader does what its command does with the file: of a schedule also its table is checked and its
picture drawn in the terminal.
"""

import json
import random
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save

from s3search.errors import InvalidConfig
from s3search.files import json_of
from s3search.formats.importers import PROCESSES, Request, import_schedule, process_named
from s3search.metrics.references import FolderImages, StatisticsFile, npz
from s3search.metrics.references.pictures import Preparation
from s3search.models import digits, edm, guided_diffusion
from s3search.models.diffusers.captions import read_prompts
from s3search.models.edm.pickle_names import names_of_pickle
from s3search.models.statistics import GaussianStatistics, ems
from s3search.rules import EmsStatistics
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.space.presets import load_space
from s3search.show.dashboard.guard import Login
from s3search.show.pictures import terminal_drawing
from s3search.solvers.plan import check_table, compile_plan
from s3search.study.file.config import load_config
from s3search.tasks.checking import check_study
from tests.formats.fuzz import samples
from tests.formats.fuzz.mutations import spoilt
from tests.formats.fuzz.samples import Sample
from tests.formats.importers.files import decisions
from tests.models.edm.pickled import dump, own_network
from tests.models.edm.test_edm import SONG
from tests.models.test_guided_diffusion import FLAGS
from tests.support.studies import STUDY

_DATA = Path(__file__).parents[2] / "data" / "before_house"
_TINY = SONG.model_copy(update={"channel_mult": (1,), "attn_resolutions": ()})
_SPACES = Path(__file__).parents[3] / "search_spaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What reads a file, the files that it reads, and those that lie beside them."""

    read: Callable[[Path], object]
    samples: Callable[[], Iterable[Sample]]
    beside: Callable[[], Mapping[str, bytes]] = dict
    is_slow: bool = False  # left out of the suite: what it imports takes seconds


# --- schedules and studies ---


def _schedule(path: Path) -> None:
    loaded = Schedule.load(path)
    check_table(loaded, json_of(path).get("plan"))
    terminal_drawing(loaded)
    assert loaded.id and json.dumps(loaded.to_dict())


@cache
def _schedules() -> list[Sample]:
    files = sorted((_DATA / "schedules").glob("*.json"))
    found = [samples.of_json(path.name, json.loads(path.read_text())) for path in files]
    schedule = Schedule.load(files[0])
    table = {**schedule.to_dict(), "plan": compile_plan(schedule).to_dict()}
    return [*found, samples.of_json("with_table.json", table)]


def _study(path: Path) -> None:
    check_study(load_config(path), loads=False)


def _studies() -> list[Sample]:
    own = sorted((_DATA / "studies").glob("*.toml"))
    texts = {path.name: path.read_text() for path in own}
    texts["small.toml"] = STUDY.format(folder="/tmp")
    return [samples.of_text(name, text) for name, text in texts.items()]


def _spaces() -> list[Sample]:
    return [samples.of_text(p.name, p.read_text()) for p in sorted(_SPACES.glob("*.toml"))]


# --- importers ---


def _import(form: str, **options: Any) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        schedule = import_schedule(form, Request(source=str(path), **options))
        assert schedule.id and json.dumps(schedule.to_dict())

    return read


def _decisions() -> list[Sample]:
    scored = [decisions(afs="zero_x0"), np.float64(3.5)]
    return [samples.of_torch(f"{i}.pth", own) for i, own in enumerate((decisions(), scored))]


def _mean_image(path: Path) -> None:
    own = path.parent / "average.pth"
    _import("usf", process=PROCESSES["score_sde"], mean_image=path)(own)


def _average() -> dict[str, bytes]:
    return {"average.pth": samples.of_torch("", decisions(afs="average_x0")).valid}


def _mean_images() -> list[Sample]:
    image = np.linspace(-1, 1, 12).reshape(3, 2, 2)
    return [samples.of_npy("mean.npy", image), samples.of_npz("mean.npz", {"mean": image})]


_LEVELS = "sigmas = [14.6, 7.5, 3.1, 1.2, 0.4, 0.03]  # of one model\n"
_NUMBERS = {"timesteps": [901, 500, 20], "sigmas": [14.6, 7.5, 3.1, 1.2, 0.4, 0.03]}
_AUTODIFFUSION = """\
epoch 3
cand: {'timesteps': [901, 76, 423, 640], 'skip_layers': [[], [3], [], []]}, fid: 24.1
[900, 600, 300, 10], fid = 30.5
"""
_GITS = """\
dp_list: [0, 3, 7, 10]
sigmas: [80.0, 10.9, 1.2, 0.002]
tensor([8.0000e+01, 5.3, 2.0e-3])
"""


def _lists(text: str, values: Any) -> Callable[[], list[Sample]]:
    return lambda: [
        samples.of_text("list.txt", text),
        samples.of_json("list.json", values),
        samples.of_json("bare.json", [*values.values()][-1]),
    ]


def _ld3_files() -> list[Sample]:
    import torch  # noqa: PLC0415

    times = torch.tensor([80.0, 20.0, 3.0, 0.5, 0.002] * 2)
    return [
        samples.of_torch("t_steps.pt", times),
        samples.of_torch("best_v1.pt", {"best_t_steps": times, "loss": 0.5}),
    ]


def _scheduler_configs() -> list[Sample]:
    betas = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
    }
    edm_levels = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0}
    configs: list[dict[str, Any]] = [
        {"_class_name": "DDIMScheduler", **betas, "set_alpha_to_one": False, "steps_offset": 1},
        {"_class_name": "PNDMScheduler", **betas, "skip_prk_steps": True},
        {"_class_name": "DPMSolverMultistepScheduler", **betas, "use_karras_sigmas": True},
        {"_class_name": "DPMSolverSinglestepScheduler", **betas, "solver_order": 3},
        {"_class_name": "UniPCMultistepScheduler", **betas, "disable_corrector": [0, 1]},
        {"_class_name": "DEISMultistepScheduler", **betas, "trained_betas": [0.01] * 40,
         "num_train_timesteps": 40},
        {"_class_name": "EulerDiscreteScheduler", **betas, "timestep_spacing": "trailing",
         "rescale_betas_zero_snr": True},
        {"_class_name": "LMSDiscreteScheduler", **betas, "use_beta_sigmas": True},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "shift_terminal": 0.1},
        {"_class_name": "FlowMatchHeunDiscreteScheduler", "num_train_timesteps": 1000},
        {"_class_name": "EDMDPMSolverMultistepScheduler", **edm_levels, "solver_order": 2},
        {"_class_name": "CogVideoXDDIMScheduler", **betas, "snr_shift_scale": 3.0},
    ]  # fmt: skip
    return [samples.of_json(f"{i}.json", own) for i, own in enumerate(configs)]


_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}


def _pipeline(path: Path) -> None:
    _import("diffusers", steps=4)(path.parent)


def _scheduler_beside() -> dict[str, bytes]:
    return {"scheduler/scheduler_config.json": _scheduler_configs()[0].valid}


def _process(path: Path) -> None:
    process = process_named(path.read_bytes().decode("utf-8", "replace"))
    published.ddim(process, nfe=3)


def _processes() -> list[Sample]:
    table = {"type": "vp_discrete", "betas": "scaled_linear", "n": 100, "beta_start": 0.00085}
    values = {"type": "vp_discrete", "betas": [0.01, 0.02, 0.03, 0.2], "n": 4}
    others = [{"type": "edm", "sigma_max": 50.0}, {"type": "vp_linear", "beta_min": 0.1}]
    whole = [table, values, *others, {"type": "vp_cosine", "s": 0.008}, {"type": "flow"}]
    return [samples.of_json(f"{i}.json", own) for i, own in enumerate(whole)]


# --- statistics and references ---


def _ems_files() -> list[Sample]:
    generator = np.random.default_rng(0)
    arrays = {name: generator.normal(size=(5, 1, 2, 2)) for name in ("l", "s", "b")}
    made = EmsStatistics(lam_start=-4.0, lam_end=2.0, provenance={"model": "m"}, **arrays)
    header = {
        "format": "s3search.ems",
        "version": "1",
        "lam_start": "-4.0",
        "lam_end": "2.0",
        "digest": made.digest,
        "provenance": '{"model": "m"}',
    }
    return [samples.of_safetensors("ems.safetensors", arrays, header)]


def _gaussian_files() -> list[Sample]:
    arrays = {
        "mean": np.zeros((1, 2, 2)),
        "eigenvalues": np.array([1.5, 0.5]),
        "eigenvectors": np.eye(4)[:, :2],
    }
    header = {
        "format": "s3search.gaussian",
        "version": "1",
        "rest": "0.25",
        "n": "50",
        "provenance": '{"images": "i"}',
    }
    return [samples.of_safetensors("gaussian.safetensors", arrays, header)]


def _gaussian(path: Path) -> None:
    found = GaussianStatistics.load(path)
    assert found.digest and found.jump(2.0, 1)


def _nodes() -> list[Sample]:
    moments = {name: np.ones((1, 2, 2)) for name in ems._MOMENTS}
    return [samples.of_safetensors("node.safetensors", moments)]


def _statistics() -> dict[str, Any]:
    return {
        "mu": np.array([0.5, -1.0, 2.0]),
        "sigma": np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.0], [0.1, 0.0, 3.0]]),
        "n": np.int64(50),
        "extractor": np.str_("pixels"),
        "source": np.str_("0123456789abcdef"),
    }


def _image_files() -> list[Sample]:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    return [samples.of_npz("images.npz", {"arr_0": pixels, "arr_1": np.arange(2)})]


def _pictures() -> list[Sample]:
    levels = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    rgb = Image.fromarray(levels)
    deep = Image.fromarray(np.arange(30, dtype=np.uint16).reshape(6, 5) * 999)
    return [
        samples.of_picture("a.png", rgb, "PNG"),
        samples.of_picture("a.png", deep, "PNG"),
        samples.of_picture("a.png", rgb.convert("P"), "PNG"),
        samples.of_picture("a.jpg", rgb, "JPEG"),
        samples.of_picture("a.bmp", rgb, "BMP"),
        samples.of_picture("a.tif", rgb, "TIFF"),
        samples.of_picture("a.tif", Image.fromarray(levels[..., 0] / np.float32(255)), "TIFF"),
        samples.of_picture("a.webp", rgb, "WEBP"),
    ]


def _picture(path: Path) -> None:
    source = FolderImages(path.parent, Preparation(resize=4))
    source.images(range(source.n))


def _other_pictures() -> dict[str, bytes]:
    return {f"b{i}.png": _pictures()[0].valid for i in range(2)}


def _dataset(path: Path) -> None:
    from s3search.metrics.references import dataset  # noqa: PLC0415

    found = dataset.load(str(path.parent), resize=4)
    found.images(range(found.n))


@cache
def _dataset_files() -> dict[str, bytes]:
    import datasets  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        pictures = [Image.fromarray(np.full((4, 4, 3), i, np.uint8)) for i in range(3)]
        features = datasets.Features({"image": datasets.Image()})
        made = datasets.Dataset.from_dict({"image": pictures}, features=features)
        made.save_to_disk(folder)
        return {each.name: each.read_bytes() for each in Path(folder).iterdir()}


def _datasets() -> list[Sample]:
    return [
        samples.of_json(name, json.loads(content))
        if name.endswith(".json")
        else samples.of_bytes(name, content)
        for name, content in _dataset_files().items()
    ]


# --- prompts, logins ---


def _prompts() -> list[Sample]:
    table = 'prompt,negative_prompt,note\na cat,,1\n"a dog, asleep",grey,2\n'
    objects = [{"prompt": "a cat"}, {"prompt": "a dog", "negative_prompt": "grey"}, "a house"]
    coco = {"annotations": [{"caption": "a cat", "id": 1}], "info": {"year": 2017}}
    lines = '{"prompt": "a cat"}\n{"prompt": "a dog", "negative_prompt": "grey"}\n'
    return [
        samples.of_text("prompts.csv", table),
        samples.of_text("prompts.tsv", table.replace(",", "\t")),
        samples.of_json("prompts.json", objects),
        samples.of_json("coco.json", coco),
        samples.of_text("prompts.jsonl", lines),
        samples.of_text("prompts.txt", "a cat\n\n  a dog\n"),
    ]


def _login(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of plain passwords
        return Login.from_file(path)


# --- checkpoints ---


def _state() -> dict[str, Any]:
    return {k: v.numpy() for k, v in own_network(_TINY)[0].state_dict().items()}


def _edm_files() -> list[Sample]:
    settings = {**_TINY.model_dump(mode="json", exclude_defaults=True), "model_type": "SongUNet"}
    return [
        samples.of_safetensors(
            "net.safetensors", _state(), {"s3search.config": json.dumps(settings)}
        )
    ]


def _edm_settings() -> list[Sample]:
    settings = {**_TINY.model_dump(mode="json", exclude={"sigma_max"}), "model_type": "SongUNet"}
    return [samples.of_json("settings.json", settings)]


def _edm_states() -> list[Sample]:
    return [samples.of_torch("net.pt", dict(own_network(_TINY)[0].state_dict()))]


def _edm_state(path: Path) -> None:
    edm.load(path, config=_TINY.model_dump() | {"model_type": "SongUNet"})


@cache
def _edm_pickles() -> list[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        path = dump(Path(folder) / "net.pkl", {"ema": own_network(_TINY)[1]})
        return [samples.of_pickle("net.pkl", path.read_bytes(), _spoilt_record)]


def _spoilt_record(chance: random.Random) -> bytes:
    """A pickle whose network's own record is spoilt: arguments, weights, class."""
    network = own_network(_TINY)[1]
    network.meta = spoilt(chance, network.meta)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return dump(Path(folder) / "net.pkl", {"ema": network}).read_bytes()
        except (UnicodeEncodeError, TypeError):  # there is no such pickle
            return b""


def _convert(path: Path) -> None:
    edm.convert(path, path.with_name("converted.safetensors"))


@cache
def _adm_state() -> bytes:
    denoiser = guided_diffusion.AdmDenoiser(guided_diffusion.AdmConfig(**FLAGS))
    return save(denoiser.network.state_dict())


def _adm_settings(path: Path) -> None:
    guided_diffusion.load(path.parent / "adm.safetensors", config=path)


def _digits(path: Path) -> None:
    digits.load(weights=path)


def _digits_files() -> list[Sample]:
    from safetensors.numpy import load_file  # noqa: PLC0415

    return [samples.of_safetensors("digits.safetensors", load_file(digits.WEIGHTS))]


# --- ours, in diffusers ---


def _scheduler(path: Path) -> None:
    from s3search.integrations.diffusers import S3Scheduler  # noqa: PLC0415

    config = json_of(path)
    if not isinstance(config, dict) or config.get("_class_name") != "S3Scheduler":
        raise InvalidConfig("diffusers itself refuses it, or takes another class")
    S3Scheduler.from_config(config)


def _saved_schedulers() -> list[Sample]:
    schedule = published.ddim(PROCESSES["sd"], nfe=4)
    model = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "epsilon",
    }
    own = [schedule.to_dict()]
    config = {"_class_name": "S3Scheduler", "s3_model": model, "s3_schedules": own}
    return [samples.of_json("scheduler_config.json", config)]


READERS: dict[str, Reader] = {
    "schedule": Reader(read=_schedule, samples=_schedules),
    "study": Reader(read=_study, samples=_studies),
    "space": Reader(read=load_space, samples=_spaces),
    "import usf": Reader(read=_import("usf", process=PROCESSES["score_sde"]), samples=_decisions),
    "usf's mean image": Reader(read=_mean_image, samples=_mean_images, beside=_average),
    "import autodiffusion": Reader(
        read=_import("autodiffusion"),
        samples=lambda: [samples.of_text("log.txt", _AUTODIFFUSION)],
    ),
    "import sigmas": Reader(
        read=_import("sigmas", process=PROCESSES["sd"]), samples=_lists(_LEVELS, _NUMBERS)
    ),
    "import timesteps": Reader(
        read=_import("timesteps", process=PROCESSES["sd"]),
        samples=_lists("901; 640; 423\n76", {"sigmas": [1.0], "timesteps": [901, 640, 76]}),
    ),
    "import gits": Reader(
        read=_import("gits"), samples=_lists(_GITS, {"sigmas": [80.0, 10.9, 1.2, 0.002]})
    ),
    "import ld3": Reader(read=_import("ld3", process=PROCESSES["edm"]), samples=_ld3_files),
    "import oss": Reader(
        read=_import("oss", steps=200, shift=3.0),
        samples=_lists("[150, 90, 20]\n[149, 80, 9]", {"steps": [150, 90, 20]}),
    ),
    "import diffusers": Reader(read=_import("diffusers", steps=4), samples=_scheduler_configs),
    "model_index.json": Reader(
        read=_pipeline,
        samples=lambda: [samples.of_json("model_index.json", _INDEX)],
        beside=_scheduler_beside,
    ),
    "--process": Reader(read=_process, samples=_processes),
    "edm settings": Reader(
        read=lambda path: edm.load(path.parent / "net.safetensors", config=path),
        samples=_edm_settings,
        beside=lambda: {"net.safetensors": _edm_files()[0].valid},
    ),
    "EMS statistics": Reader(read=EmsStatistics.load, samples=_ems_files),
    "node of an EMS job": Reader(read=ems._kept, samples=_nodes),
    "Gaussian statistics": Reader(read=_gaussian, samples=_gaussian_files),
    "reference statistics": Reader(
        read=StatisticsFile.load,
        samples=lambda: [samples.of_npz("statistics.npz", _statistics())],
    ),
    "reference npz": Reader(read=lambda path: npz.load(str(path)), samples=_image_files),
    "pictures": Reader(read=_picture, samples=_pictures, beside=_other_pictures),
    "dataset on disk": Reader(
        read=_dataset, samples=_datasets, beside=_dataset_files, is_slow=True
    ),
    "prompts": Reader(read=lambda path: read_prompts(str(path)), samples=_prompts),
    "logins": Reader(
        read=_login,
        samples=lambda: [samples.of_text("logins", "ada:one two\nbob:x:y\n")],
    ),
    "edm safetensors": Reader(read=edm.load, samples=_edm_files),
    "edm state dict": Reader(read=_edm_state, samples=_edm_states),
    "edm pickle, converted": Reader(read=_convert, samples=_edm_pickles),
    "edm pickle, inspected": Reader(read=names_of_pickle, samples=_edm_pickles),
    "adm settings": Reader(
        read=_adm_settings,
        samples=lambda: [samples.of_json("settings.json", FLAGS)],
        beside=lambda: {"adm.safetensors": _adm_state()},
    ),
    "digits weights": Reader(read=_digits, samples=_digits_files),
    "S3Scheduler": Reader(read=_scheduler, samples=_saved_schedulers, is_slow=True),
}
