"""Every algorithm that a study file can name proposes."""

from pathlib import Path

import pytest

from s3search.errors import InvalidConfig
from s3search.processes import edm
from s3search.run.algorithms import ALGORITHMS, baseline_seeds, make_proposer, make_search
from s3search.search import Observation, load_space
from tests.support.studies import study_config


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "s3"])
@pytest.mark.parametrize("baselines", ["true", "false"])
def test_a_named_algorithm_proposes_what_the_study_searches(
    tmp_path: Path, name: str, baselines: str
) -> None:
    overrides = (f"search.algorithm='{name}'", f"search.baselines={baselines}")
    config = study_config(tmp_path, *overrides)
    seeds = baseline_seeds(config, edm())
    proposer = make_proposer(config, load_space("usf"), edm(), seeds)
    for number in range(len(seeds) + 4):
        proposal = proposer.propose(number, [])
        assert proposal.schedule.nfe == 3
        assert proposal.origin.startswith("baseline") == (number < len(seeds))
        value = 1.0 + number
        proposer.tell(Observation(number=number, schedule=proposal.schedule, value=value))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ufs", "did you mean 'usf'"),
        ("usf:tpe", "unknown algorithm 'usf:tpe'"),
        ("autodiffusion:2n", "did you mean '2m'"),
    ],
)
def test_an_unknown_algorithm_is_refused(tmp_path: Path, name: str, hint: str) -> None:
    config = study_config(tmp_path, f"search.algorithm='{name}'")
    with pytest.raises(InvalidConfig, match=hint):
        make_search(config, load_space("usf"), edm(), {})
