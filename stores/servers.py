"""How PostgreSQL, MariaDB and MySQL are set while they work for threadkeep.

On connections that threadkeep opened it sets once what it needs. A connection that a host's engine lends is set for one transaction, and is
given back as it was.
"""

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from threadkeep.stores.faults import WAIT_SECONDS

MODES = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO"
"""What MariaDB and MySQL are to refuse: a value that does not fit its column, above all, which they would otherwise cut."""
_OWN_POSTGRESQL = (f"SELECT set_config('lock_timeout', '{WAIT_SECONDS}s', false) WHERE current_setting('lock_timeout') = '0'",)
_OWN_MYSQL = (
    f"SET SESSION sql_mode = '{MODES}', SESSION innodb_lock_wait_timeout = {WAIT_SECONDS}, SESSION lock_wait_timeout = {WAIT_SECONDS}",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
_LENT_POSTGRESQL = f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'"
_KEPT = ("sql_mode", "innodb_lock_wait_timeout", "lock_wait_timeout", "autocommit")
# With ANSI_QUOTES names may be quoted in either way, so it does not matter which one SQLAlchemy found the host to use.
_LENT_MYSQL = (
    ", ".join(f"@threadkeep_{name} = @@SESSION.{name}" for name in _KEPT)
    + f", SESSION sql_mode = '{MODES},ANSI_QUOTES'"
    + f", SESSION innodb_lock_wait_timeout = {WAIT_SECONDS}, SESSION lock_wait_timeout = {WAIT_SECONDS}, SESSION autocommit = 0"
)
_RETURNED_MYSQL = "SET " + ", ".join(f"SESSION {name} = @threadkeep_{name}" for name in _KEPT)


def connect_args(url: URL) -> dict[str, object]:
    """What the driver is told for a connection of our own."""
    return {"client_encoding": "utf8"} if url.get_backend_name() == "postgresql" else {}


def set_own(engine: Engine) -> None:
    """Set every connection that the engine opens, before SQLAlchemy looks at it."""
    statements = _OWN_POSTGRESQL if engine.dialect.name == "postgresql" else _OWN_MYSQL

    @event.listens_for(engine, "connect", insert=True)
    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()


def set_lent(connection: Connection) -> None:
    """Set a host's connection for the transaction that has just begun, of which nothing was sent yet."""
    dialect = connection.dialect
    if dialect.name == "postgresql":
        connection.exec_driver_sql(_LENT_POSTGRESQL)
        return
    older = getattr(dialect, "is_mariadb", False) and (dialect.server_version_info or ()) < (11, 1, 1)
    level = "tx_isolation" if older else "transaction_isolation"
    connection.exec_driver_sql(f"SET {_LENT_MYSQL}, @@{level} = 'READ-COMMITTED'")  # without SESSION: of the next transaction alone


def give_back(connection: Connection) -> None:
    """Set a host's connection to what it was; where that fails, it is closed rather than lent on."""
    if connection.dialect.name == "postgresql":
        return
    try:
        connection.exec_driver_sql(_RETURNED_MYSQL)
    except DBAPIError:
        connection.invalidate()
