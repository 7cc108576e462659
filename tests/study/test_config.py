"""Study files: overrides, and errors that name the key."""

from pathlib import Path

import pytest

from s3search.errors import InvalidConfig
from s3search.study.file.config import load_config, parse_config
from s3search.study.file.held_out import held_out_images

STUDY = """
[study]
name = "t"
[model]
loader = "digits"
[space]
nfe = [5, 3]
[metric]
features = "digits"
[reference]
images = "digits"
"""


def _file(tmp_path: Path, text: str = STUDY) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    config = load_config(_file(tmp_path))
    assert config.space.nfe == (3, 5)
    assert config.search.evaluations == 300
    assert (config.validation.n_images, config.held_out_images) == ("auto", 5300)
    assert config.cluster.address == "local"
    assert config.search.polish_loss == "metric"
    assert "trajectory" not in config.search.ladder


def test_a_byte_order_mark_is_no_part_of_a_study(tmp_path: Path) -> None:
    path = Path(_file(tmp_path))
    plain = load_config(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_config(path) == plain


def test_remaining_keys_go_to_the_plug_in(tmp_path: Path) -> None:
    text = STUDY.replace('loader = "digits"', 'loader = "digits"\nguidance_scale = 1.5')
    assert load_config(_file(tmp_path, text)).model.options == {"guidance_scale": 1.5}


def test_values_are_overridden_from_the_command_line(tmp_path: Path) -> None:
    overrides = ["search.evaluations=50", "study.name=other", "space.nfe=[4]", "model.labels=none"]
    config = load_config(_file(tmp_path), overrides)
    assert config.search.evaluations == 50
    assert config.study.name == "other"
    assert config.space.nfe == (4,)
    assert config.model.options == {"labels": "none"}


def test_search_and_validation_noise_never_meet(tmp_path: Path) -> None:
    configs = [load_config(_file(tmp_path), [f"study.seed={seed}"]) for seed in range(5)]
    searched = {config.search_noise_seed for config in configs}
    held_out = {config.validation_noise_seed for config in configs}
    assert len(searched) == len(held_out) == 5
    assert not searched & held_out


def test_a_second_extractor_takes_the_remaining_keys_of_its_table(tmp_path: Path) -> None:
    overrides = ["validation.metric.features=digits", "validation.metric.network=b"]
    spec = load_config(_file(tmp_path), overrides).evaluator_spec
    assert spec.second is not None
    assert (spec.second.name, spec.second.options) == ("digits", {"network": "b"})
    assert load_config(_file(tmp_path)).evaluator_spec.second is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.evalutions=5", r"search.evalutions: unknown key; did you mean 'evaluations'"),
        ("serch.evaluations=5", r"serch: unknown key; did you mean 'search'"),
        ("search.evaluations=-1", r"search.evaluations: .*greater than or equal to 0"),
        ("search.polish_loss=fid", r"search.polish_loss: .*'metric' or 'trajectory'"),
        ("search.n_images=many", r"search.n_images: .*integer.*'many'"),
        ("space.nfe=[]", r"space.nfe"),
        ("space.nfe=[0]", r"from 1 to 100"),
        ("study.seed=nan", r"study.seed"),
        ('study.name=""', r"study.name"),
        ("validation.metrics.features=digits", r"metrics: unknown key; did you mean 'metric'"),
        ("validation.metric.network=b", r"validation.metric.features: missing"),
        ("validation.metric.features=digits", r"validation.metric: is the extractor of \[metric"),
        ("evaluations=3", r"--set takes table.key=value"),
        (
            "validation.n_images=1",
            r"validation.n_images: .*from 2 to .*, or 'auto' for so many.*found 1",
        ),
        ("cluster.workers=0", r"cluster.workers: .*whole number .*'auto' for as many.*found 0"),
        ("cluster.workers=true", r"cluster.workers: .*found True"),
        ("cluster.gpus_per_worker=-1", r"cluster.gpus_per_worker: .*'auto' for one where.*-1"),
        ("cluster.gpus_per_worker=all", r"cluster.gpus_per_worker: .*found 'all'"),
        ("cluster.min_workers=-1", r"cluster.min_workers: .*greater than or equal to 0"),
        ("cluster.task_seconds=0", r"cluster.task_seconds: .*greater than 0"),
    ],
)
def test_a_wrong_value_names_its_key(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        load_config(_file(tmp_path), [override])


def test_a_search_waits_for_no_more_workers_than_it_asks_for(tmp_path: Path) -> None:
    least = "cluster.min_workers=3"
    assert load_config(_file(tmp_path), [least]).cluster.workers == "auto"
    with pytest.raises(InvalidConfig, match=r"min_workers = 3 of workers = 2: .* raise workers"):
        load_config(_file(tmp_path), [least, "cluster.workers=2"])


def test_the_device_follows_from_the_gpus_of_a_worker(tmp_path: Path) -> None:
    for gpus, device in (("auto", "auto"), ("0", "cpu"), ("0.5", "cuda"), ("2", "cuda")):
        config = load_config(_file(tmp_path), [f"cluster.gpus_per_worker={gpus}"])
        assert config.evaluator_spec.device == device


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["search.evaluations=20", "search.n_images=100"], 200),  # twice those of an evaluation
        (["search.evaluations=60"], 2000),
        (["search.evaluations=300"], 5300),  # 300,000 / 2 images for 28 schedules of each NFE
        (["search.evaluations=300", "space.nfe=[5]"], 10_000),
        (["search.evaluations=300", "search.baselines=false"], 10_000),
        (["search.evaluations=300", "validation.finalists=20"], 3700),
        (["search.n_images=8000", "search.evaluations=9"], 16_000),
        (["search.evaluations=0"], 2000),
        (["validation.n_images=123"], 123),
    ],
)
def test_a_validation_costs_about_what_the_search_did(
    tmp_path: Path, overrides: list[str], expected: int
) -> None:
    assert load_config(_file(tmp_path), overrides).held_out_images == expected


@pytest.mark.parametrize(("n_images", "expected"), [(100, 1000), (5000, 10_000)])
def test_a_budget_of_time_has_ten_evaluations_of_held_out_images(
    n_images: int, expected: int
) -> None:
    options = {"finalists": 8, "baselines": True}
    assert held_out_images(n_images, evaluations=None, **options) == expected


def test_the_validation_keeps_its_size_when_the_budget_grows(tmp_path: Path) -> None:
    first = load_config(_file(tmp_path), ["search.evaluations=60"]).settled()
    assert first.validation.n_images == 2000
    more = load_config(_file(tmp_path), ["search.evaluations=600"])
    assert more.held_out_images == 10_000
    assert more.settled(first).validation.n_images == 2000
    asked = load_config(_file(tmp_path), ["validation.n_images=10000"])
    assert asked.settled(first) == asked


def test_a_missing_table_is_named() -> None:
    with pytest.raises(InvalidConfig, match="model: missing"):
        parse_config({"study": {"name": "t"}})


def test_files_that_are_no_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(InvalidConfig, match="not valid TOML"):
        load_config(_file(tmp_path, "[study\nname="))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(bytes(range(128, 256)))
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load_config(binary)


def test_a_study_of_before_a_loss_could_be_chosen_is_the_same_study(tmp_path: Path) -> None:
    config = load_config(_file(tmp_path))
    old = config.model_dump(mode="json")
    old["search"].pop("polish_loss")
    assert old["search"]["ladder"] == ["gaussian", "mixture", "race", "predictor", "polish"]
    assert parse_config(old).identity == config.identity


@pytest.mark.parametrize("population", ["0", "-1", "1.5", "true", "many"])
def test_a_population_is_a_number_or_auto(population: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"cluster\.population: is a whole number .*'auto'"):
        load_config(_file(tmp_path), [f"cluster.population={population}"])
    found = load_config(_file(tmp_path), ["cluster.population=auto"])
    assert found.cluster.population == "auto"


def test_guards_of_one_name_are_told_apart(tmp_path: Path) -> None:
    guards = [
        {"features": "digits", "at_most": 1.1},
        {"features": "digits", "network": "b", "at_most": 1.1},
        {"kind": "mind", "features": "digits", "at_most": 1.1},
    ]
    config = load_config(_file(tmp_path))
    metric = {"features": "digits", "guard": guards}
    config = parse_config({**config.model_dump(exclude={"metric"}), "metric": metric})
    assert [guard.name for guard in config.guards] == [
        "digits (guard 1)",
        "digits (guard 2)",
        "mind in digits",
    ]
