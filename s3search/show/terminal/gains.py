"""What each stage of a search gained, in lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3search.search.stages import stage_words
from s3search.show.terminal.numbers import number


def gain_lines(gains: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each stage, each proxy and each warning, by number of calls."""
    for each in gains:
        calls = sum(stage["network_calls"] for stage in each["stages"])
        published = number(each["published"])
        yield f"NFE {each['nfe']}: what gained on the best published, {published}:"
        for stage in each["stages"]:
            yield f"  {_stage_line(stage, calls)}"
        for name, worth in each["proxies"].items():
            yield f"  {_worth_line(name, worth)}"
        for warning in each["warnings"]:
            yield f"warning: {warning}"


def gain_words(gain: Mapping[str, Any]) -> str:
    """The stages that gained something: "breeding 20 %, second look at the best 80 %"."""
    shares = [(stage_words(s["stage"]).title, s["share"]) for s in gain["stages"] if s["share"]]
    found = [f"{title} {100 * share:.0f} %" for title, share in shares]
    return ", ".join(found) or "nothing gained on the published"


def _stage_line(stage: Mapping[str, Any], calls: float) -> str:
    how = " by differences" if stage.get("by_differences") else ""
    counts = [f"{stage['n_polished']} polishings{how}"] if stage["n_polished"] else []
    counts.append(f"{stage['n']} measured")
    if stage.get("broken"):
        counts.append(f"{stage['broken']} break a guard")
    if stage["failed"]:
        counts.append(f"{stage['failed']} failed")
    share = 100 * stage["network_calls"] / calls if calls else 0.0
    said = [*counts, f"{share:.0f} % of the calls", f"{stage['seconds']:.1f} worker seconds"]
    if stage["after"] is not None:
        said.append(f"{number(stage['before'])} -> {number(stage['after'])}")
    if stage["share"]:
        said.append(f"{100 * stage['share']:.0f} % of the gain")
    return f"{stage_words(stage['stage']).title}: {', '.join(said)}"


def _worth_line(name: str, worth: Mapping[str, Any]) -> str:
    both = worth["correlation"], worth["top_correlation"]
    whole, top = ("-" if value is None else f"{value:.2f}" for value in both)
    line = f"{stage_words(name).title}: rank correlation {whole} "
    line += f"({top} in the best part; {worth['n']})"
    line += f", {worth['scored']} scored" if "scored" in worth else ""
    return line if worth["dropped"] is None else f"{line}; dropped: {worth['dropped']}"
