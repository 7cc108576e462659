"""Which tests run one after the other in one process, where several processes share the work.

xdist's own groups do nothing under pytest 9.2 (xdist 3.8 writes them where nobody looks), and they
would not keep a module's tests beside the fixture that only the module has.
"""

import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_RAY, _FINISHED = "what starts a Ray", "what looks at the finished study"
_BEFORE_OTHERS = (_RAY, _FINISHED)  # the longest
_ENOUGH = 2  # tests that a process knows of beside each other


def unit_of(item: pytest.Item) -> str:
    """Tests of one unit share a process: they share what takes long to make.

    All that start a Ray, because two Rays beside each other are slower than one after the other.
    """
    if item.get_closest_marker("cluster") is not None:
        return _RAY
    fixtures: dict[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    if "finished" in fixtures:
        return _FINISHED
    if any(own[-1].scope in ("module", "class") for own in fixtures.values()):
        return item.nodeid.partition("::")[0]
    return item.nodeid


def share_out(config: pytest.Config) -> None:
    """Makes xdist's ``--dist loadgroup`` hand out units; does nothing without xdist."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_Worker(Path(config.workerinput["units"])))
    elif config.getoption("dist", "no") == "loadgroup":
        folder = TemporaryDirectory(prefix="s3search-units-")
        config.add_cleanup(folder.cleanup)
        config.pluginmanager.register(_Controller(Path(folder.name) / "units.json"))


class _Worker:
    """In a process that runs tests: the long units first, so that no process ends long before the
    others, and a note of all units for the process that hands them out.
    """

    def __init__(self, note: Path) -> None:
        self._note = note

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        units = {item.nodeid: unit_of(item) for item in items}
        sizes = Counter(units.values())
        slow = {units[item.nodeid] for item in items if item.get_closest_marker("slow")}
        ranks = {unit: i for i, unit in enumerate(_BEFORE_OTHERS)}

        def place(item: pytest.Item) -> tuple[int, bool, int]:
            unit = units[item.nodeid]
            return ranks.get(unit, len(ranks)), unit not in slow, -sizes[unit]

        items.sort(key=place)
        own = self._note.with_suffix(f".{os.getpid()}")
        own.write_text(json.dumps(units))
        own.replace(self._note)  # all processes write the same


class _Controller:
    def __init__(self, note: Path) -> None:
        self._note = note

    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["units"] = str(self._note)

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        config.option.loadscopereorder = False
        return _Scheduling(config, log, self._note)


class _Scheduling(LoadScopeScheduling):
    """Hands out whole units, in the order of the tests; of a process that died the test that it
    died of has failed, and another process goes on with the rest.

    xdist 3.8 hands that test out again, gives a process too little to begin with, and has sent the
    others home by then: the session would never end.
    """

    def __init__(self, config: pytest.Config, log: Any, note: Path) -> None:
        super().__init__(config, log)
        self._note = note
        self._units: dict[str, str] = {}

    def remove_node(self, node: Any) -> str | None:
        """Takes a process off the list; the test that it died of, if it did."""
        units = self.assigned_work.pop(node)
        left = [test for tests in units.values() for test, is_done in tests.items() if not is_done]
        for test in reversed(left[1:]):
            unit = self._split_scope(test)
            self.workqueue[unit] = {test: False, **self.workqueue.get(unit, {})}
            self.workqueue.move_to_end(unit, last=False)
        for other in self.nodes:
            self._reschedule(other)
        return left[0] if left else None

    def _reschedule(self, node: Any) -> None:
        """Gives a process enough to go on with: it begins a test when it knows the next."""
        if node not in self.registered_collections:
            return  # it has only just begun, and asks once it has its tests
        waiting = self.assigned_work[node]
        while self.workqueue and not node.shutting_down and self._pending_of(waiting) <= _ENOUGH:
            self._assign_work_unit(node)
        if not self.workqueue:
            node.shutdown()

    def _assign_work_unit(self, node: Any) -> None:
        with suppress(OSError):  # it died just now, and what it has is soon handed out again
            super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        if not self._units:
            self._units = json.loads(self._note.read_text())
        return self._units[nodeid]
