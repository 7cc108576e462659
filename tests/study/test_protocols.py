"""Protocols: what a name fixes is filled in, and a contradiction names both sides."""

from typing import Any

import pytest

from s3search.errors import InvalidConfig
from s3search.study.file.config import StudyConfig, parse_config
from s3search.study.file.protocols import PROTOCOLS


def _study(protocol: str, **tables: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "study": {"name": "t"},
        "model": {"loader": "digits"},
        "space": {"nfe": [5]},
        "metric": {"protocol": protocol},
        "reference": {"images": "npz", "path": "ref.npz"},
    }
    for name, table in tables.items():
        data[name] = {**data.get(name, {}), **table}
    return data


def test_a_protocol_fills_in_what_it_fixes() -> None:
    edm = parse_config(_study("fid-50k-edm", metric={"weights": "here.pth"}))
    assert (edm.metric.features, edm.metric.protocol) == ("inception", "fid-50k-edm")
    assert edm.metric.options == {"weights": "here.pth"}
    assert edm.validation.n_images == 50_000
    dino = parse_config(_study("fd-dinov2-50k"))
    assert (dino.metric.features, dino.metric.options) == ("dinov2", {"side": 224})
    coco = _study("fid-10k-coco", reference={"images": "folder", "path": "val2014"})
    assert parse_config(coco).reference.options == {"path": "val2014", "resize": 256}


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_study_with_a_protocol_survives_being_stored(name: str) -> None:
    config = parse_config(_study(name, validation={"finalists": 3}))
    again: StudyConfig = parse_config(config.model_dump(mode="json"))
    assert again == config
    assert again.identity == config.identity
    assert again.evaluator_spec == config.evaluator_spec
    assert config.validation.finalists == 3


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"metric": {"protocol": "fid-50k"}}, "metric.protocol: there is no 'fid-50k'; did you"),
        ({"metric": {"features": "dinov2"}}, "'fid-10k-coco' fixes 'inception', found 'dinov2'"),
        ({"validation": {"n_images": 5000}}, "validation.n_images: .* fixes 10000, found 5000"),
        ({"reference": {"images": "digits"}}, "takes npz, folder, dataset, found 'digits'"),
        (
            {"reference": {"images": "folder", "resize": 512}},
            "reference.resize: .* fixes 256, found 512",
        ),
        ({"validation": 3}, "validation"),
    ],
)
def test_a_contradiction_names_both_sides(tables: dict[str, Any], message: str) -> None:
    data = _study("fid-10k-coco")
    for name, table in tables.items():
        data[name] = {**data.get(name, {}), **table} if isinstance(table, dict) else table
    with pytest.raises(InvalidConfig, match=f"study: .*{message}"):
        parse_config(data)


def test_a_study_without_a_protocol_is_left_alone() -> None:
    data = _study("fid-50k-edm")
    data["metric"] = {"features": "digits"}
    assert parse_config(data).metric.protocol is None
    assert parse_config(data).validation.n_images == "auto"
