"""Which form the tables have, and how they come to this release's."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from threadkeep.memory.errors import SchemaTooNew, SchemaTooOld, StoreBusy, StoreError
from threadkeep.stores.engine import begun, schema_of
from threadkeep.stores.faults import WAIT_SECONDS
from threadkeep.stores.schema import PREFIX
from threadkeep.stores.servers import MODES

VERSIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""Every form there was, the newest last."""
VERSION_TABLE = PREFIX + "version"
LOCK = 8_319_675_417_302_112_101
"""The number under which PostgreSQL lets one process migrate at a time; on MariaDB and MySQL it is a name, with the database's."""
LOCK_SECONDS = 3600
"""How long another's migration is waited for."""
_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def stored_version(connection: Connection) -> str | None:
    """The version the tables have; None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema_of(connection)):
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


def migrate(reading: Engine, writing: Engine) -> str:
    """Run the migrations that are missing, one process at a time; the version afterwards.

    SQLite and PostgreSQL run all of them in one transaction. MariaDB and MySQL commit each change of a table by itself: a migration that
    was cut off there goes on where it stopped when it is run again.
    """
    with begun(reading) as connection:
        found = stored_version(connection)
    refuse_newer(found)
    if found == VERSIONS[-1]:
        return found
    from alembic import command  # slow to import, and seldom needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "threadkeep.stores:migrations")
    with begun(writing) as connection, _alone(connection):
        refuse_newer(stored_version(connection))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return VERSIONS[-1]


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """No other process migrates this database meanwhile; one that comes waits, and then finds nothing to do."""
    match connection.dialect.name:
        case "postgresql":
            _prepare_postgresql(connection)
            yield
        case "mysql" | "mariadb":
            if (
                connection.dialect.identifier_preparer.initial_quote != '"'
            ):  # SQLAlchemy reads what there is by the quotes it found at first
                connection.execute(text(f"SET SESSION sql_mode = '{MODES}'"))
            with _named_lock(connection):
                yield
        case _:  # SQLite's transaction is the only one that writes
            yield


def _prepare_postgresql(connection: Connection) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise StoreError(f"the database's encoding is {encoding}, and names need UTF8: make it with ENCODING 'UTF8' TEMPLATE template0")
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    connection.execute(text(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'"))  # a table that a running service uses is not waited for long
    schema = schema_of(connection)
    if schema is not None:
        if not inspect(connection).has_schema(schema):
            connection.execute(CreateSchema(schema))
        # not every statement of a migration tells its schema
        connection.execute(text("SELECT set_config('search_path', quote_ident(:schema), true)"), {"schema": schema})


@contextmanager
def _named_lock(connection: Connection) -> Iterator[None]:
    name = "LEFT(CONCAT('threadkeep ', MD5(DATABASE())), 64)"
    if connection.execute(text(f"SELECT GET_LOCK({name}, {LOCK_SECONDS})")).scalar() != 1:
        raise StoreBusy(f"another process has been migrating the database for {LOCK_SECONDS} s; nothing was changed. Try again")
    try:
        yield
        connection.execute(text("COMMIT"))  # before another may look
    finally:
        with suppress(DBAPIError):  # where the connection is gone, so is the lock
            connection.execute(text(f"SELECT RELEASE_LOCK({name})"))
