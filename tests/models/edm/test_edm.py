"""EDM checkpoints: trusted pickles, refused ones, conversion, and files that do not fit."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3search.errors import InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.models import edm
from s3search.models.edm.denoiser import EdmDenoiser
from s3search.models.edm.pickle_names import names_of_pickle
from s3search.models.edm.unets import DhariwalConfig, EdmConfig, SongConfig
from s3search.processes import edm as edm_process
from s3search.schedules import published
from s3search.search.questions import Rung, measure
from tests.models.edm.pickled import (
    Persistent,
    RunsCode,
    dump,
    foreign_network,
    own_network,
    with_weights,
)
from tests.support.specs import evaluator_spec

SONG = SongConfig(
    img_resolution=8,
    label_dim=3,
    augment_dim=2,
    model_channels=8,
    channel_mult=(1, 2),
    num_blocks=1,
    attn_resolutions=(4,),
)
NCSN = SONG.model_copy(
    update={
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "encoder_type": "residual",
        "decoder_type": "skip",
        "resample_filter": (1.0, 3.0, 3.0, 1.0),
    }
)
ADM = DhariwalConfig(
    img_resolution=8,
    label_dim=3,
    model_channels=64,
    channel_mult=(1, 1),
    num_blocks=1,
    attn_resolutions=(4,),
)
CONFIGS = {"ddpm++": SONG, "ncsn++": NCSN, "adm": ADM}


def _state(n: int = 3, channels: int = 3, side: int = 8) -> tuple[Any, Any, Any]:
    x = torch.randn((n, channels, side, side), generator=torch.Generator().manual_seed(1))
    return x, torch.logspace(-2, 1, n), torch.arange(n) % 3


# --- trusted pickles ---


@pytest.mark.parametrize("label_dim", [0, 3])
def test_a_trusted_pickle_answers_as_the_network_that_was_pickled(
    tmp_path: Path, label_dim: int
) -> None:
    net, pickled = foreign_network(label_dim)
    path = dump(tmp_path / "net.pkl", {"ema": pickled, "loss_fn": None})
    denoiser = edm.load(path, trust_pickle=True)
    x, sigma, labels = _state(channels=2, side=4)
    one_hot = torch.eye(3)[labels] if label_dim else None
    given = {"labels": labels} if label_dim else {}
    torch.testing.assert_close(denoiser(x, sigma, **given), net(x, sigma, one_hot))
    assert denoiser.process == edm_process(0.002, 80.0)
    assert denoiser.sample_shape == (2, 4, 4)
    assert not any(p.requires_grad for p in denoiser.parameters())
    assert denoiser(x.double(), sigma.double(), **given).dtype == torch.float64


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "it_ran"
    path = dump(tmp_path / "net.pkl", {"ema": RunsCode(target)})
    with pytest.raises(InvalidConfig, match=r"no checkpoint of NVlabs needs builtins\.exec"):
        edm.load(path)
    with pytest.raises(InvalidConfig, match=r"it calls builtins\.exec"):
        edm.convert(path, tmp_path / "net.safetensors")
    assert not target.exists()
    assert not (tmp_path / "net.safetensors").exists()
    with pytest.raises(InvalidConfig, match="has no network 'ema'"):
        edm.load(path, trust_pickle=True)
    assert target.exists()  # the refusal was of something real


def test_an_honest_pickle_is_refused_with_what_would_do(tmp_path: Path) -> None:
    path = dump(tmp_path / "net.pkl", {"ema": own_network(SONG)[1]})
    with pytest.raises(InvalidConfig) as caught:
        edm.load(path)
    message = str(caught.value)
    assert "torch_utils.persistence._reconstruct_persistent_obj" in message
    assert f"s3search tools checkpoint convert {path} -o net.safetensors" in message
    assert "trust_pickle = true" in message
    assert "no checkpoint of NVlabs needs" not in message


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_every_global_of_a_pickle_is_named(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "some.pkl"
    content = [RunsCode(path), RunsCode(path), Path("x"), torch.nn.Identity]
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = names_of_pickle(path)
    names = found.names
    assert found.doubt is None
    assert "torch.nn.modules.linear.Identity" in names
    assert any(name.endswith(".exec") for name in names)
    assert len(names) == len(set(names))


def test_a_source_that_fails_is_one_sentence(tmp_path: Path) -> None:
    broken = Persistent("Net", {}, "import no_such_package")
    path = dump(tmp_path / "net.pkl", {"ema": broken})
    with pytest.raises(InvalidConfig, match=r"failed while it ran.*no_such_package"):
        edm.load(path, trust_pickle=True)


def test_a_trusted_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    path = dump(tmp_path / "net.pkl", {"ema": torch.nn.Identity()})
    with pytest.raises(InvalidConfig, match="holds a Identity without img_channels"):
        edm.load(path, trust_pickle=True)


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    _, pickled = foreign_network()
    pickled.meta["version"] = 7
    path = dump(tmp_path / "net.pkl", {"ema": pickled})
    with pytest.raises(InvalidConfig, match="version 6; found 'class', version 7"):
        edm.load(path, trust_pickle=True)


# --- conversion and safetensors ---


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_converted_pickle_holds_the_same_network(tmp_path: Path, kind: str) -> None:
    original, pickled = own_network(CONFIGS[kind])
    path = dump(tmp_path / "net.pkl", {"ema": pickled})
    target = tmp_path / "net.safetensors"
    settings = edm.convert(path, target)
    assert settings["model_type"] == CONFIGS[kind].model_type
    loaded = edm.load(target)
    x, sigma, labels = _state()
    torch.testing.assert_close(loaded(x, sigma, labels), original(x, sigma, labels))
    assert loaded.sample_shape == (3, 8, 8)


def test_settings_may_stand_beside_the_file(tmp_path: Path) -> None:
    denoiser = with_weights(EdmDenoiser(SONG))
    settings = SONG.model_dump(exclude={"sigma_max"})
    weights, described = tmp_path / "net.safetensors", tmp_path / "net.json"
    save_file(denoiser.state_dict(), weights)
    described.write_text(json.dumps(settings))
    torch.save(denoiser.state_dict(), tmp_path / "net.pt")
    x, sigma, labels = _state()
    expected = denoiser(x, sigma, labels)
    for file, config in (
        (weights, settings),
        (weights, described),
        (tmp_path / "net.pt", settings),
    ):
        loaded = edm.load(file, config=config)
        torch.testing.assert_close(loaded(x, sigma, labels), expected)
    with pytest.raises(InvalidConfig, match="does not say how its network is built"):
        edm.load(weights)


def test_half_precision_is_near_single(tmp_path: Path) -> None:
    denoiser = with_weights(EdmDenoiser(SONG))
    save_file(denoiser.state_dict(), tmp_path / "net.safetensors")
    loaded = edm.load(tmp_path / "net.safetensors", config=SONG.model_dump(), dtype="bfloat16")
    x, sigma, labels = _state()
    answer = loaded(x, sigma, labels)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, denoiser(x, sigma, labels), rtol=0.1, atol=0.1)


def test_no_noise_is_answered_with_the_state_itself() -> None:
    denoiser = with_weights(EdmDenoiser(SONG))
    x, _, labels = _state()
    torch.testing.assert_close(denoiser(x, torch.zeros(3), labels), x)


def test_an_answer_follows_its_state_with_a_gradient() -> None:
    denoiser = with_weights(EdmDenoiser(ADM)).double()
    x, sigma, labels = _state(1)
    x = x.double().requires_grad_()
    weights = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(at: torch.Tensor) -> torch.Tensor:
        return (denoiser(at, sigma.double(), labels) * weights).sum()

    (gradient,) = torch.autograd.grad(value(x), x)
    step = 1e-5 * weights
    with torch.no_grad():
        difference = (value(x + step) - value(x - step)).item() / 2
    assert difference == pytest.approx((gradient * step).sum().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("config", "n_parameters"),
    [
        # CIFAR-10 DDPM++ and ImageNet-64 ADM: 55.7 and 295.9 million, as published
        (SongConfig(img_resolution=32, channel_mult=(2, 2, 2), augment_dim=9), 55_733_891),
        (DhariwalConfig(img_resolution=64, label_dim=1000), 295_899_267),
    ],
)
def test_published_networks_have_their_number_of_parameters(
    config: EdmConfig, n_parameters: int
) -> None:
    with torch.device("meta"):
        denoiser = EdmDenoiser(config)
    assert sum(p.numel() for p in denoiser.parameters()) == n_parameters


# --- files that do not fit ---


def _saved(tmp_path: Path, **changes: Any) -> Path:
    state = with_weights(EdmDenoiser(SONG)).state_dict()
    path = tmp_path / "net.safetensors"
    state.update({name: value for name, value in changes.items() if value is not None})
    save_file({k: v for k, v in state.items() if changes.get(k, 0) is not None}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.map_layer0.bias": None}, r"misses model\.map_layer0\.bias"),
        ({"other": torch.zeros(1)}, "has no place for other"),
        (
            {"model.map_layer0.bias": torch.zeros(5)},
            r"map_layer0\.bias \(found \(5,\), expected \(32,\)\)",
        ),
        (
            {"model.map_layer0.bias": torch.zeros(32, dtype=torch.int64)},
            r"floating-point numbers at model\.map_layer0\.bias \(found torch\.int64\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        edm.load(_saved(tmp_path, **changes), config=SONG.model_dump())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float23"}, "model.dtype: 'float23'.*did you mean"),
        ({"labels": "all"}, "model.labels"),
        ({"labels": "none"}, "knows no image without one"),
        ({"config": {"model_type": "Song"}}, "did you mean 'SongUNet'"),
        ({"config": {**SONG.model_dump(), "num_block": 3}}, "did you mean 'num_blocks'"),
        ({"config": {"model_type": "SongUNet"}}, r"config\.img_resolution: Field required"),
        ({"config": "no_such.json"}, "no_such.json: cannot be read"),
    ],
)
def test_wrong_options_are_one_clear_sentence(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        edm.load(_saved(tmp_path), **({"config": SONG.model_dump()} | options))


def test_a_wrong_path_is_named(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no.pkl", "does not exist")):
        with pytest.raises(InvalidConfig, match=message):
            edm.load(path)
    for name, message in (
        ("a.safetensors", "no safetensors file"),
        ("a.pt", "more than tensors|no file of torch.save"),
        ("a.pkl", "is no pickle"),
    ):
        (tmp_path / name).write_bytes(b"not a checkpoint at all")
        with pytest.raises(InvalidConfig, match=message):
            edm.load(tmp_path / name, config=None)


def test_a_torch_file_with_more_than_tensors_is_not_run(tmp_path: Path) -> None:
    torch.save({"w": RunsCode(tmp_path / "it_ran")}, tmp_path / "net.pt")
    with pytest.raises(InvalidConfig, match="it was not loaded"):
        edm.load(tmp_path / "net.pt", config=SONG.model_dump())
    assert not (tmp_path / "it_ran").exists()


def test_only_edm_networks_are_converted(tmp_path: Path) -> None:
    _, other = own_network(SONG)
    other.meta["class_name"] = "VPPrecond"
    path = dump(tmp_path / "net.pkl", {"ema": other})
    with pytest.raises(InvalidConfig, match=r"holds a VPPrecond.*trust_pickle"):
        edm.convert(path, tmp_path / "net.safetensors")


# --- in the evaluator ---


def test_an_evaluation_runs_from_a_file_by_its_short_name(tmp_path: Path) -> None:
    _, pickled = own_network(SONG)
    edm.convert(dump(tmp_path / "net.pkl", {"ema": pickled}), tmp_path / "net.safetensors")
    images = torch.rand((8, 3, 8, 8), generator=torch.Generator().manual_seed(4))
    save_file({"images": images}, tmp_path / "images.safetensors")
    spec = evaluator_spec(
        model="edm",
        model_options={"path": str(tmp_path / "net.safetensors")},
        features="tests.support.plugins:pixels",
        reference="tests.models.edm.test_edm:stored_images",
        reference_options={"path": str(tmp_path / "images.safetensors")},
    )
    schedule = published.ddim(edm_process(), nfe=2)
    question = measure(schedule, rung=Rung.SEARCH, n_images=20, noise_seed=0)
    found = Evaluator(spec).evaluate(question)
    assert found.network_calls == 40
    assert found.value is not None
    assert found.value > 0


def stored_images(path: str) -> torch.Tensor:
    """The reference of the test above."""
    return load_file(path)["images"]


def test_classes_are_even() -> None:
    denoiser = EdmDenoiser(SONG)
    labels = denoiser.condition(100, torch.Generator().manual_seed(0))["labels"]
    assert sorted(torch.bincount(labels).tolist()) == [33, 33, 34]
