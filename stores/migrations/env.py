"""Runs the migrations on the connection it is given, inside its transaction."""

from alembic import context

from threadkeep.stores.schema import metadata
from threadkeep.stores.versions import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=False,
)
context.run_migrations()
