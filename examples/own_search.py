"""A search of one's own: in a study file, ``algorithm = "examples.own_search:Batches"``."""

import numpy as np

from s3search.search.algorithms.evolution import Evolution
from s3search.search.conversation import Ask, Conversation, Setup
from s3search.search.trial import Trial, searched


class Batches:
    """Batches of eight, each bred from the best of all before it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.breeder = Evolution(setup)

    def run(self) -> Conversation[None]:
        """Yields questions, is sent the answers; runs again from here after an interruption."""
        rng, nfe = np.random.default_rng(self.setup.seed), self.setup.nfe[0]
        trials = list(self.setup.seeds)[:8]  # published solvers, to begin with
        spent = 0
        while True:
            questions = tuple(self.setup.measure(trial) for trial in trials)
            answers = yield Ask(begin=questions, wait=questions)
            for number, measured in enumerate(answers.given):
                self.breeder.tell(measured.numbered(spent + number))
            spent += len(trials)
            if spent * self.setup.n_images >= answers.outside.budget or answers.outside.is_over:
                return
            bred = [self.breeder.child(nfe, rng) for _ in range(8)]
            trials = [Trial.of(schedule, searched(how), of) for schedule, how, of in bred]
