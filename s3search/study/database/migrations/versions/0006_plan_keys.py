"""The key of every schedule's plan, so that a resumed search need not compile what it measured.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds a column; in the rows that are there it stays null, and they are read as before."""
    op.add_column("s3search_schedules", sa.Column("plan_key", sa.String(32)))
