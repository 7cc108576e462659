"""What distances could be on other noise, for paired intervals between validated schedules.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds a column."""
    op.add_column("s3search_evaluations", sa.Column("replicates", sa.Text))
