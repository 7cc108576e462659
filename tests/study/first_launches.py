"""Many drivers that make their studies in one new database at one moment."""

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from s3search.errors import StudyConflict
from s3search.study.database.store import create_or_resume, study_names
from tests.support.studies import study_config

_SECONDS = 0.5  # until all begin


def begin(url: str, name: str, folder: Path, at: float) -> None:
    """Makes a study at a moment, with Optuna's beside it."""
    folder.mkdir()
    config = study_config(folder, f"storage.url='{url}'", f"study.name='{name}'")
    time.sleep(max(at - time.time(), 0.0))
    with create_or_resume(config, {}) as store:
        store.mirror.open()


def launch_at_once(url: str, n: int, is_same: bool) -> None:
    """Exits with 0 where every study is made, or, of the same name, one by one driver."""
    at, children = time.time() + _SECONDS, []
    folder = Path(tempfile.mkdtemp())
    for i in range(n):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                begin(url, "t" if is_same else f"t{i}", folder / str(i), at)
                code = 0
            except StudyConflict as error:
                code = 0 if is_same and "is being run by another driver" in str(error) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    expected = ["t"] if is_same else sorted(f"t{i}" for i in range(n))
    sys.exit(0 if not any(codes) and study_names(url) == expected else f"{codes}")
