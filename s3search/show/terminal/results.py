"""What was measured, in lines: the best schedules of a study, a single evaluation."""

from collections.abc import Iterator, Sequence
from typing import Any

from s3search.search.questions import Measurement
from s3search.search.stages import stage_words
from s3search.search.trial import Origin
from s3search.study.metric_words import MetricWords


def best_lines(
    rows: list[dict[str, Any]], vetoed: Sequence[tuple[int, str]] = ()
) -> Iterator[str]:
    """Lines for each NFE: the held-out value with all that it needs, how optimistic the search
    was, and what may be claimed of found against published; and the trials left out by a person,
    with the reasons.
    """
    for row in rows:
        held_out, search = row["held_out"], row["search"]
        interval = held_out["interval_95"]
        shown = "" if interval is None else f" (95 % {interval[0]:.4f} to {interval[1]:.4f})"
        yield f"NFE {row['nfe']}: {_maker(row['origin'])}, schedule {row['schedule_id']}"
        if row["target"] not in (None, "any"):
            yield f"  to run in: {row['target']}"
        for each in row["tied_to"]:
            yield f"  tied to {each}"
        words = MetricWords.said_by(row)
        yield (
            f"  {words.named} {held_out['value']:.4f}{shown}: "
            f"{held_out['n_images']:,} images, "
            f"held-out noise seed {held_out['noise_seed']}, "
            f"{words.judged(row['extractor'], row['reference_digest'])}, "
            f"model {row['model_fingerprint']}"
        )
        ranked = (
            f"  ranked in the search by {search['value']:.4f} "
            f"({search['n_images']:,} images, noise seed {search['noise_seed']})"
        )
        if row["optimism"] is not None:
            ranked += (
                f"; as many held-out images give {search['held_out_value']:.4f}: "
                f"the search was {_optimism(row['optimism'])}"
            )
        yield ranked
        yield from (f"  {sentence}" for sentence in row["claim"]["says"])
    for trial, reason in vetoed:
        yield f"vetoed: trial {trial}: {reason or 'no reason was given'}"


def _maker(origin: str) -> str:
    """Who made a schedule: a published solver by its name, the search by its stage."""
    return stage_words(Origin.of_text(origin).name).title


def evaluation_line(evaluation: Measurement, between: tuple[float, float] | None) -> str:
    """One measurement with everything it needs, ``between`` being its 95 % interval."""
    error, question = evaluation.standard_error, evaluation.question
    said = [] if error is None else [f"standard error {error:.4f}"]
    said += [] if between is None else [f"95 % {between[0]:.4f} to {between[1]:.4f}"]
    spread = f" ({', '.join(said)})" if said else ""
    words = MetricWords(kind=str(evaluation.metric), direction=evaluation.direction)
    judged = words.judged(str(evaluation.extractor), str(evaluation.reference_digest))
    return (
        f"{words.named} {evaluation.value:.4f}{spread}: "
        f"{evaluation.n_images:,} images, noise seed {question.noise_seed}, "
        f"NFE {evaluation.trial.nfe}, {judged}, model {evaluation.model_fingerprint}, "
        f"{evaluation.seconds:.2f} s on {evaluation.device}"
    )


def _optimism(by: float) -> str:
    return f"{'optimistic' if by >= 0.0 else 'pessimistic'} by {abs(by):.4f}"
