"""Alembic's entry: runs the migrations on the connection that `engine` hands over."""

from alembic import context

from s3search.study.database.tables import METADATA

VERSION_TABLE = "s3search_alembic_version"  # Optuna keeps its own in "alembic_version"

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    include_object=lambda _object, name, kind, *_: kind != "table" or name.startswith("s3search_"),
)
with context.begin_transaction():
    context.run_migrations()
