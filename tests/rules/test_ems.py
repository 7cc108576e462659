"""EMS statistics: their integrals, their file, and what v3 steps make of them."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from s3search.errors import IncompatibleStatistics
from s3search.rules import EmsStatistics, Prediction, Taylor, UniPC, Variant, level
from tests.support.helpers import PROCESSES

_LOW, _HIGH = -4.0, 5.0


def _statistics(n: int, *, l: float = 0.7, s: float = -0.3, b: float = 0.2) -> EmsStatistics:  # noqa: E741
    """Constant statistics, whose integrals are elementary."""
    shape = (n + 1, 1, 2, 2)
    return EmsStatistics(
        lam_start=_LOW,
        lam_end=_HIGH,
        l=np.full(shape, l),
        s=np.full(shape, s),
        b=np.full(shape, b),
        provenance={"model": "none"},
    )


def test_node_is_the_nearest_one() -> None:
    ems = _statistics(90)
    assert [ems.node(lam) for lam in (_LOW, _LOW + 0.049, _LOW + 0.051, _HIGH)] == [0, 0, 1, 90]
    assert ems.lams[[0, 45, 90]] == pytest.approx([_LOW, 0.5, _HIGH])
    assert ems.nearest_node(-math.inf) == 0


@pytest.mark.parametrize("lam", [_LOW - 0.06, _HIGH + 0.06, math.inf, -math.inf])
def test_level_outside_the_nodes_is_refused(lam: float) -> None:
    with pytest.raises(IncompatibleStatistics, match="outside the EMS nodes, -4 to 5"):
        _statistics(90).node(lam)


def test_integrals_converge_to_the_exact_ones_at_slope_two() -> None:
    l, s, b, length = 0.7, -0.3, 0.2, 3.0  # noqa: E741
    rate = l + s
    exact = [math.expm1(rate * length) / rate]
    for k in range(1, 5):  # int e^(r x) x^k / k! = (e^(r h) h^k / k! - the one before) / r
        term = math.exp(rate * length) * length**k / math.factorial(k)
        exact.append((term - exact[-1]) / rate)
    # beta(x) = b (1 - e^(-s x)) / s, so that drift = (b / s) (int e^(r x) - int e^(l x))
    exact.append(b / s * (exact[0] - math.expm1(l * length) / l))
    errors = []
    for n in (90, 180):
        found = _statistics(n).interval(n // 9, n // 9 * 4)
        values = [float(x[0, 0, 0]) for x in (*found.powers, found.drift)]
        errors.append(np.abs(np.array(values) - exact))
        assert found.gain == pytest.approx(math.exp(-l * length))
    assert (errors[1] < 1e-2).all()
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)


def test_statistics_survive_their_file(tmp_path: Path) -> None:
    ems, path = _statistics(12), tmp_path / "model.safetensors"
    ems.save(path)
    again = EmsStatistics.load(path)
    assert again.digest == ems.digest
    assert again.provenance == {"model": "none"}
    assert list(tmp_path.iterdir()) == [path]
    assert np.array_equal(again.interval(1, 7).drift, ems.interval(1, 7).drift)


def test_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    _statistics(12).save(path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(
        IncompatibleStatistics, match=r"model\.safetensors: the arrays have digest"
    ):
        EmsStatistics.load(path)
    save_file({"l": np.zeros(3)}, path)
    assert load_file(path)
    with pytest.raises(IncompatibleStatistics, match=r"expected s3search\.ems version 1"):
        EmsStatistics.load(path)
    path.write_text("no tensors")
    with pytest.raises(IncompatibleStatistics, match="no EMS statistics"):
        EmsStatistics.load(path)
    with pytest.raises(IncompatibleStatistics, match="no EMS statistics"):
        EmsStatistics.load(tmp_path / "missing.safetensors")


def test_statistics_travel_to_workers_without_their_caches() -> None:
    ems = _statistics(12)
    ems.interval(0, 3)
    again = pickle.loads(pickle.dumps(ems))
    assert again.digest == ems.digest
    assert np.array_equal(again.interval(0, 3).powers[0], ems.interval(0, 3).powers[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l": np.ones(5)}, r"EMS l has shape \(nodes, ...\)"),
        ({"s": np.ones((5, 1, 2, 3))}, "EMS l and s differ in shape"),
        ({"b": np.full((5, 1, 2, 2), np.nan)}, "EMS b holds NaN"),
        ({"lam_end": _LOW}, "run from noisy to clean"),
        ({"lam_end": math.inf}, "finite lam"),
    ],
)
def test_impossible_statistics_are_refused(change: dict[str, object], message: str) -> None:
    good = np.ones((5, 1, 2, 2))
    fields: dict[str, object] = {
        "lam_start": _LOW, "lam_end": _HIGH, "l": good, "s": good, "b": good,
    }  # fmt: skip
    with pytest.raises(IncompatibleStatistics, match=message):
        EmsStatistics(**{**fields, **change})  # type: ignore[arg-type]  # the point of the test


def test_digest_sees_the_range_and_every_array() -> None:
    digests = {_statistics(12).digest, _statistics(13).digest}
    digests |= {_statistics(12, **{name: 0.5}).digest for name in ("l", "s", "b")}
    digests.add(EmsStatistics.degenerate(_LOW, _HIGH, 12).digest)
    assert len(digests) == 6


def test_v3_step_touches_neither_end() -> None:
    process, rule = PROCESSES["flow"], Taylor(prediction=Prediction.V3, order=1)
    pure, inner, clean = (level(process, t) for t in (1.0, 0.5, 0.0))
    for levels, to in ([pure], inner), ([inner], clean):
        problem = rule.problem(levels, to)
        assert problem is not None
        assert problem.field == "prediction"
    assert rule.problem([inner], level(process, 0.2)) is None


def test_unipc_has_no_v3() -> None:
    with pytest.raises(ValueError, match="v3 is a prediction of 'taylor'"):
        UniPC(prediction=Prediction.V3, variant=Variant.BH2)
