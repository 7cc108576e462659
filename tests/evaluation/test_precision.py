"""Sampling in bfloat16: the same ranking, known by another fingerprint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from s3search.errors import StudyConflict
from s3search.evaluation.evaluator import Evaluator
from s3search.processes import edm
from s3search.run.launching import launch
from s3search.schedules import published
from s3search.search.questions import Rung, measure
from tests.support.specs import evaluator_spec
from tests.support.studies import study_config

SPEC = evaluator_spec(model="digits", features="digits", reference="digits")


def test_bfloat16_ranks_schedules_as_float32_does() -> None:
    full, short = Evaluator(SPEC), Evaluator(replace(SPEC, precision="bfloat16"))
    assert full.model_fingerprint != short.model_fingerprint
    schedules = list({s.id: s for s in published.baselines(edm(), 5).values()}.values())[::5][:30]
    questions = [measure(s, rung=Rung.SEARCH, n_images=150, noise_seed=0) for s in schedules]
    values = np.array([[e.evaluate(q).value for q in questions] for e in (full, short)])
    assert len(schedules) >= 25
    assert not np.array_equal(*values)
    assert spearmanr(*values).statistic > 0.98
    assert full.images(schedules[0], 2, 0).dtype == torch.float32


def test_a_study_does_not_change_its_precision(tmp_path: Path) -> None:
    sizes = ("search.evaluations=2", "search.baselines=false", "validation.n_images=4")
    launch(study_config(tmp_path, *sizes), lambda _: None)
    with pytest.raises(StudyConflict, match="measured with model"):
        launch(study_config(tmp_path, *sizes, "cluster.precision=bfloat16"), lambda _: None)
