"""Named ways to measure, so that two numbers of one name mean the same.

A protocol fixes the extractor with its options, the images behind a reported number and what the
reference is made of.  A study file names one in ``[metric] protocol`` and may repeat what it
fixes; saying something else is an error that names both.  Where weights and files lie is left to
the study: the digests in every evaluation tell which they were.

Not fixed are the noises: the published seeds (0 to 49,999, one generator each) belong to the
authors' own sampling code; here noise depends on seed and image number alone
(`s3search.evaluation.noise`).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from s3search.errors import InvalidConfig, nearest


class Protocol(BaseModel):
    """What one name fixes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: str
    options: Mapping[str, Any] = {}  # of the extractor
    n_images: int  # of a reported number: [validation] n_images
    references: tuple[str, ...]  # what [reference] images may be
    resize: int | None = None  # side in pixels of real images read from a folder or dataset
    source: str  # who measures so


_IMAGES = ("folder", "dataset")

PROTOCOLS = {
    "fid-50k-edm": Protocol(
        features="inception",
        n_images=50_000,
        references=("npz",),
        source="arXiv:2206.00364, fid.py with the authors' statistics of the training images",
    ),
    "fid-50k-adm": Protocol(
        features="inception",
        n_images=50_000,
        references=("npz",),
        source="arXiv:2105.05233, evaluations/ with the authors' reference batches",
    ),
    "fid-10k-coco": Protocol(
        features="inception",
        n_images=10_000,
        references=("npz", *_IMAGES),
        resize=256,
        source="10,000 captions of MS-COCO 2014's validation set, its images at 256 x 256",
    ),
    "fd-dinov2-50k": Protocol(
        features="dinov2",
        options={"side": 224},
        n_images=50_000,
        references=("npz", *_IMAGES),
        source="arXiv:2306.04675",
    ),
}


def with_protocol(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A study's tables with what their protocol fixes filled in; raises `InvalidConfig`."""
    metric = data.get("metric")
    name = metric.get("protocol") if isinstance(metric, Mapping) else None
    if name is None:
        return data
    if name not in PROTOCOLS:
        raise InvalidConfig(
            f"metric.protocol: there is no {name!r}; {nearest(str(name), PROTOCOLS)}"
        )
    protocol = PROTOCOLS[name]
    made = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()
    }
    _fix(made, name, "metric", {"features": protocol.features, **protocol.options})
    _fix(made, name, "validation", {"n_images": protocol.n_images})
    reference = made.get("reference")
    kind = reference.get("images") if isinstance(reference, dict) else None
    if kind is not None and kind not in protocol.references:
        raise InvalidConfig(
            f"reference.images: the protocol {name!r} takes {', '.join(protocol.references)}, "
            f"found {kind!r}; change one of the two"
        )
    if kind in _IMAGES and protocol.resize is not None:
        _fix(made, name, "reference", {"resize": protocol.resize})
    return made


def _fix(made: dict[str, Any], name: str, table: str, values: Mapping[str, Any]) -> None:
    own = made.setdefault(table, {})
    if not isinstance(own, dict):
        return  # no table: the study's own check says so
    for key, value in values.items():
        if own.setdefault(key, value) != value:
            raise InvalidConfig(
                f"{table}.{key}: the protocol {name!r} fixes {value!r}, found {own[key]!r}; leave "
                "one of the two out"
            )
