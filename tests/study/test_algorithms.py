"""Every algorithm that a study file can name proposes."""

from pathlib import Path

import pytest

from s3search.errors import InvalidConfig
from s3search.processes import edm
from s3search.run.algorithms import ALGORITHMS, make_search, proposer_of
from s3search.run.baselines import known_baselines
from s3search.run.prepare import baseline_seeds
from s3search.search.space import load_space
from tests.support.searches import measured, setup_of
from tests.support.studies import study_config


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "s3"])
@pytest.mark.parametrize("baselines", ["true", "false"])
def test_a_named_algorithm_proposes_what_the_study_searches(
    tmp_path: Path, name: str, baselines: str
) -> None:
    overrides = (f"search.algorithm='{name}'", f"search.baselines={baselines}")
    config = study_config(tmp_path, *overrides)
    known = [known_baselines(None, edm(), 3)] if baselines == "true" else []
    seeds = baseline_seeds(config, known)
    assert bool(seeds) == bool(known)
    setup = setup_of(load_space("usf"), edm(), nfe=config.space.nfe, seeds=seeds, evaluations=6)
    assert make_search(name, setup).total == len(seeds) + 6
    proposer = proposer_of(name, setup)()
    for number in range(len(seeds) + 4):
        trial = proposer.propose(number, [])
        assert trial.schedule.nfe == 3
        assert trial.origin.text.startswith("baseline") == (number < len(seeds))
        proposer.tell(measured(trial, 1.0 + number))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ufs", "did you mean 'usf'"),
        ("usf:tpe", "unknown algorithm 'usf:tpe'"),
        ("autodiffusion:2n", "did you mean '2m'"),
    ],
)
def test_an_unknown_algorithm_is_refused(name: str, hint: str) -> None:
    with pytest.raises(InvalidConfig, match=hint):
        make_search(name, setup_of(load_space("usf"), edm(), nfe=[3]))
