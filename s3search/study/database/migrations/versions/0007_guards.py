"""What a study's guards give the images of an evaluation.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds a column."""
    op.add_column("s3search_evaluations", sa.Column("guards", sa.Text))
