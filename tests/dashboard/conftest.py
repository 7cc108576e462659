"""One finished study with an evil name, for tests that only look at it."""

import json

import pytest

from s3search.launching import launch
from s3search.study.config import StudyConfig
from tests.studies import study_config

NAME = "<script>alert(1)</script> | $a & [b](javascript:c) 'd'"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """Two numbers of calls, a predictor, a race and a second extractor."""
    config = study_config(
        tmp_path_factory.mktemp("study"),
        f"study.name={json.dumps(NAME)}",
        "space.nfe=[2, 3]",
        "search.algorithm=s3",
        "search.evaluations=40",
        "validation.metric.features=tests.plugins:squares",
        "validation.n_images=200",
    )
    launch(config, lambda _: None)
    return config
