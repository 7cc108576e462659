"""What is vetoed, as a running search asks it of the database: often, and at times again.

now()           at most a second old
told_at(point)  what the search was told at a point of its way the first time that it came by;
                kept among the study's notes, so that a search that is run again from its
                beginning goes the same way, and a veto costs nothing that was measured
"""

import time

from s3search.study.database.store import StudyStore

NOTE = "vetoed"
SECONDS = 1.0  # between two looks at the database


class VetoWatch:
    """The vetoes of one study, by schedule id."""

    def __init__(self, store: StudyStore) -> None:
        self._store = store
        self._found: frozenset[str] = frozenset()
        self._looked_at: float | None = None
        self._told: dict[str, frozenset[str]] | None = None  # None: only the database knows

    def now(self) -> frozenset[str]:
        """What is vetoed."""
        at = time.monotonic()
        if self._looked_at is None or at - self._looked_at >= SECONDS:
            self._found, self._looked_at = frozenset(self._store.vetoes()), at
        return self._found

    def told_at(self, point: str) -> frozenset[str]:
        """What is vetoed, or was when the search was here before."""
        if self._told is None:
            notes = [content for _, content in self._store.notes(NOTE)]
            self._told = {note["point"]: frozenset(note["schedules"]) for note in notes}
        if point not in self._told:
            found = self._told[point] = self.now()
            self._store.add_note(NOTE, {"point": point, "schedules": sorted(found)})
        return self._told[point]
