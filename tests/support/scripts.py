"""Every new database loads thirty modules, one for each version of Optuna's schema, three times:
here they are loaded once.
"""

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory


def read_scripts_once_in(patch: pytest.MonkeyPatch) -> None:
    """What alembic reads in a folder of schema versions is the same all through the tests."""
    read, known = ScriptDirectory.from_config, dict[str, ScriptDirectory]()

    def of(config: Config) -> ScriptDirectory:
        folder = str(config.get_main_option("script_location"))
        if folder not in known:
            known[folder] = read(config)
        return known[folder]

    patch.setattr(ScriptDirectory, "from_config", of)
