"""Which form the tables have, and how they come to this release's."""

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, inspect, select

from threadkeep.memory.errors import SchemaTooNew, SchemaTooOld
from threadkeep.stores.schema import PREFIX

VERSIONS = ("0001", "0002", "0003", "0004")
"""Every form there was, the newest last."""
VERSION_TABLE = PREFIX + "version"
_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def stored_version(connection: Connection) -> str | None:
    """The version the tables have; None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(_version.c.version_num)).scalar_one_or_none()


def check_schema(connection: Connection) -> bool:
    """Whether the tables are this release's.

    Raises:
        SchemaTooNew: a newer release made them.
        SchemaTooOld: they are to be migrated.
    """
    found = stored_version(connection)
    refuse_newer(found)
    if found != VERSIONS[-1]:
        has = "has no tables of threadkeep" if found is None else f"is of version {found}, and this release needs {VERSIONS[-1]}"
        raise SchemaTooOld(f"the database {has}: run `threadkeep migrate --database …` once, before the service starts")
    return True


def refuse_newer(found: str | None) -> None:
    if found is not None and found not in VERSIONS:
        raise SchemaTooNew(
            f"the database is of version {found}, and this release of threadkeep knows versions up to {VERSIONS[-1]}: upgrade threadkeep"
        )


def migrate(engine: Engine, writing: Engine) -> str:
    """Run the migrations that are missing, in one transaction; the version afterwards."""
    with engine.connect() as connection:
        found = stored_version(connection)
    refuse_newer(found)
    if found == VERSIONS[-1]:
        return found
    from alembic import command  # slow to import, and seldom needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "threadkeep.stores:migrations")
    with writing.connect() as connection, connection.begin():
        refuse_newer(stored_version(connection))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return VERSIONS[-1]
