"""Whose code a study's file or row names: what is loaded before its model can make an image.

A database of somebody else is data.  Commands that read it load nothing of this; those that are
asked to make images say it before they do.
"""

from collections.abc import Mapping

from s3search.evaluation.live import LIVE
from s3search.evaluation.plugins import FEATURES, MODELS, REFERENCES, SCORES
from s3search.study.file.config import StudyConfig


def named_code(config: StudyConfig) -> list[str]:
    """The functions that a study names and that are not this program's own, with what they are
    for; where any is looked for last.
    """
    spec = config.evaluator_spec
    metrics = [own for own in (spec.metric, *spec.guards, spec.second) if own is not None]
    named = [
        ("model.loader", spec.model, MODELS),
        ("reference.images", spec.reference or "", REFERENCES),
        *((own.key, own.name, SCORES if own.is_score else FEATURES) for own in metrics),
    ]
    found = [f"{key} = {name!r}" for key, name, known in named if _is_foreign(name, known)]
    folders = config.cluster.import_from
    return [*found, f"modules in {', '.join(folders)}"] if found and folders else found


def _is_foreign(name: str, known: Mapping[str, str]) -> bool:
    return bool(name) and name != LIVE and name not in known


def code_sentence(config: StudyConfig, *, will: bool) -> str:
    """What running the study's model runs (``will``) or would run, as a sentence."""
    study = f"study {config.study.name!r}"
    loader = f"model.loader = {config.model.loader!r}"
    named = ", ".join(named_code(config)) or f"only this program's own ({loader})"
    return f"{'running' if will else 'it would run'} code that {study} names: {named}"
