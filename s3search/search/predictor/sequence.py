"""S3's predictor: a sequence model over the steps, trained to rank.

After OMS-DPM (arXiv:2306.08860), the ancestor of the predictor of S3 (arXiv:2312.07243), whose own
was never released.  Every step is a token (`features.tokens`) with the schedule's log proxies
beside it; one LSTM layer reads them, its outputs are normalised, averaged over time and
normalised again, and a small network makes the score s of them (higher is worse here).  The loss
over pairs with clearly different log distances y_i > y_j is the hinge

    mean max(0, margin - (s_i - s_j)),     margin 1.

Two things are ours.  Tokens are numbers, not embeddings: a search has hundreds of examples, not
thousands.  And each member of the ensemble leaves a part of the examples out; what it says of
them gives the line from score to log distance, and the error that is left is the uncertainty,
with the disagreement of the members.

Shapes: B schedules, T steps (shorter ones are padded), F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from s3search.search.predictor.base import Array, Example, Forecast, log_distances
from s3search.search.predictor.features import Proxies, Standard, proxy_names, tokens
from s3search.search.predictor.process import kept_rows

_HIDDEN = 48
_MARGIN = 1.0
_CLEARLY = 0.05  # of the deviation of the log distances: nearer pairs are not ranked
_BATCH = 256
_RATE, _LAST_RATE = 5e-3, 1e-5
_DECAY = 1e-3
_LEAST_EXAMPLES = 6  # below this there is nothing to leave out


@dataclass(slots=True, kw_only=True, eq=False)
class SequenceModel:
    """The ensemble; ``proxies`` names what stands beside every token, None all that enough
    examples have.
    """

    proxies: tuple[str, ...] | None = None
    members: int = 3
    epochs: int = 120
    most: int = 600
    _tokens: "_Tokens | None" = field(default=None, init=False)
    _scorers: list["_Scorer"] = field(default_factory=list, init=False)
    _line: "_Line | None" = field(default=None, init=False)

    def fit(self, examples: Sequence[Example], values: Sequence[float], seed: int) -> None:
        """Trains each member on all examples but its part."""
        y = log_distances(examples, values)
        kept = kept_rows(y, self.most, seed)
        examples, y = [examples[i] for i in kept], y[kept]
        names = proxy_names(examples) if self.proxies is None else self.proxies
        self._tokens = _Tokens(examples, names)
        self._scorers, held_out = [], np.zeros(len(y))
        if len(y) >= _LEAST_EXAMPLES:
            x, present = self._tokens(examples)
            parts = np.random.default_rng(seed).permutation(len(y)) % self.members
            for k in range(self.members):
                scorer = _trained(x, present, y, parts != k, self.epochs, seed + k)
                self._scorers.append(scorer)
                held_out[parts == k] = scorer(x, present)[parts == k]
        self._line = _Line.through(held_out, y)

    def predict(self, examples: Sequence[Example]) -> Forecast:
        """The members' mean score on the line from scores to log distances."""
        if self._tokens is None or self._line is None:
            raise RuntimeError("predict: the model has learnt nothing yet; call fit first")
        x, present = self._tokens(examples)
        scores = [scorer(x, present) for scorer in self._scorers] or [np.zeros(len(examples))]
        return self._line(np.stack(scores))

    def for_fold(self) -> "SequenceModel":
        """Half the epochs."""
        return SequenceModel(
            proxies=self.proxies,
            members=self.members,
            epochs=(self.epochs + 1) // 2,
            most=self.most,
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """log distance = intercept + slope * score, and the deviation that is left."""

    intercept: float
    slope: float
    rest: float

    @staticmethod
    def through(scores: Array, y: Array) -> "_Line":
        """Least squares; a falling line means that the scores say nothing, and becomes level."""
        variance = float(scores.var())
        slope = float(((scores - scores.mean()) * (y - y.mean())).mean()) / max(variance, 1e-12)
        slope = max(slope, 0.0)
        intercept = float(y.mean()) - slope * float(scores.mean())
        rest = float((y - intercept - slope * scores).std())
        return _Line(intercept, slope, max(rest, 1e-3))

    def __call__(self, scores: Array) -> Forecast:  # (members, n)
        spread = self.slope * scores.std(0)
        return Forecast(self.intercept + self.slope * scores.mean(0), np.hypot(spread, self.rest))


class _Tokens:
    """Examples as (B, T, F) numbers and (B, T) of which steps there are."""

    def __init__(self, examples: Sequence[Example], names: Sequence[str]) -> None:
        self._proxies = Proxies(examples, names)
        self._standard = Standard(np.vstack([tokens(e.schedule) for e in examples]))

    def __call__(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        steps = [self._standard(tokens(example.schedule)) for example in examples]
        proxies = self._proxies(examples)
        longest = max(len(rows) for rows in steps)
        width = steps[0].shape[1] + proxies.shape[1]
        x = torch.zeros(len(examples), longest, max(width, 1))
        present = torch.zeros(len(examples), longest)
        for b, rows in enumerate(steps):
            beside = np.broadcast_to(proxies[b], (len(rows), proxies.shape[1]))
            x[b, : len(rows), :width] = torch.from_numpy(np.hstack([rows, beside])).float()
            present[b, : len(rows)] = 1.0
        return x.clamp(-5.0, 5.0), present


class _Network(nn.Module):
    """Tokens to one score each; its weights come from ``generator`` alone."""

    def __init__(self, n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):  # torch's own initialisation would draw from the global seed
            self.embed = nn.Linear(n_features, _HIDDEN)
            self.lstm = nn.LSTM(_HIDDEN, _HIDDEN, batch_first=True)
            self.inner = nn.Linear(_HIDDEN, _HIDDEN)
            self.head = nn.Linear(_HIDDEN, 1)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.parameters():
                bound = 1.0 / math.sqrt(parameter.shape[-1] if parameter.ndim > 1 else _HIDDEN)
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:  # (B, T, F), (B, T) -> (B,)
        read, _ = self.lstm(torch.relu(self.embed(x)))
        read = nn.functional.normalize(read, dim=-1) * present[..., None]
        mean = nn.functional.normalize(read.sum(1), dim=-1)
        score: Tensor = self.head(torch.relu(self.inner(mean * math.sqrt(_HIDDEN))))[:, 0]
        return score


@dataclass(frozen=True, slots=True, eq=False)
class _Scorer:
    """A trained network; its scores have mean 0 and deviation 1 on what it was trained on."""

    network: _Network
    mean: float
    std: float

    def __call__(self, x: Tensor, present: Tensor) -> Array:
        with torch.inference_mode():
            raw = self.network(x, present).double().numpy()
        scores: Array = (raw - self.mean) / self.std
        return scores


def _trained(x: Tensor, present: Tensor, y: Array, mine: Array, epochs: int, seed: int) -> _Scorer:
    generator = torch.Generator().manual_seed(seed)
    network = _Network(x.shape[-1], generator)
    x, present, target = x[mine], present[mine], torch.from_numpy(y[mine])
    clearly = _CLEARLY * float(target.std())
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs, _LAST_RATE)
    for _ in range(epochs):
        shuffled = torch.randperm(len(target), generator=generator)
        for batch in torch.split(shuffled, _BATCH):
            optimiser.zero_grad()
            loss = _ranking_loss(network(x[batch], present[batch]), target[batch], clearly)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimiser.step()
        rates.step()
    with torch.inference_mode():
        raw = network(x, present)
    return _Scorer(network, float(raw.mean()), float(raw.std().clamp(min=1e-6)))


def _ranking_loss(scores: Tensor, target: Tensor, clearly: float) -> Tensor:
    """The hinge of the module's docstring, over all pairs of the batch."""
    worse = (target[:, None] - target > clearly).to(scores)
    hinge = torch.relu(_MARGIN - (scores[:, None] - scores))
    return (worse * hinge).sum() / worse.sum().clamp(min=1.0)
