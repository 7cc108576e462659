"""Studies, schedules, proposals and evaluations.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the four tables."""
    op.create_table(
        "s3search_studies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "s3search_schedules",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("nfe", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "s3search_proposals",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, sa.ForeignKey("s3search_studies.id"), nullable=False, index=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("schedule_id", sa.String(32), sa.ForeignKey("s3search_schedules.id"), nullable=False),
        sa.Column("origin", sa.String(200), nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("study_id", "number"),
    )
    op.create_table(
        "s3search_evaluations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, sa.ForeignKey("s3search_studies.id"), nullable=False, index=True),
        sa.Column("schedule_id", sa.String(32), sa.ForeignKey("s3search_schedules.id"), nullable=False),
        sa.Column("rung", sa.String(20), nullable=False),
        sa.Column("n_images", sa.Integer, nullable=False),
        sa.Column("noise_seed", sa.String(24), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("standard_error", sa.Float),
        sa.Column("block_images", sa.Integer),
        sa.Column("block_value", sa.Float),
        sa.Column("error", sa.Text),
        sa.Column("metric", sa.String(40)),
        sa.Column("extractor", sa.String(200)),
        sa.Column("nfe", sa.Integer, nullable=False),
        sa.Column("network_batches", sa.Integer),
        sa.Column("network_calls", sa.Integer),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("sampling_seconds", sa.Float),
        sa.Column("device", sa.String(40)),
        sa.Column("worker", sa.String(200), nullable=False),
        sa.Column("code_version", sa.String(40)),
        sa.Column("reference_digest", sa.String(40)),
        sa.Column("reference_n", sa.Integer),
        sa.Column("model_fingerprint", sa.String(40)),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("study_id", "schedule_id", "rung", "n_images", "noise_seed"),
    )
