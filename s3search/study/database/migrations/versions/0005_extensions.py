"""Where a study went on in a wider space.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds a table."""
    op.create_table(
        "s3search_extensions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, sa.ForeignKey("s3search_studies.id"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("nfe", sa.Text, nullable=False),
        sa.Column("first_number", sa.Integer, nullable=False),
        sa.Column("spent", sa.Float, nullable=False),
        sa.Column("warm", sa.Text, nullable=False),
        sa.Column("space_before", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("study_id", "version"),
    )
    op.create_index("ix_s3search_extensions_study_id", "s3search_extensions", ["study_id"])
