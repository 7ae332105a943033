"""The database's clock, as an expression in a statement: the one that all machines which use the database agree on."""

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class DatabaseNow(FunctionElement[int]):
    """This moment, in microseconds since 1970 in UTC. On SQLite, whose clock is the machine's, it is exact to the millisecond."""

    type = BigInteger()
    name = "threadkeep_now"
    inherit_cache = True


@compiles(DatabaseNow, "sqlite")
def _on_sqlite(*_: object, **__: object) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)"


@compiles(DatabaseNow, "postgresql")
def _on_postgresql(*_: object, **__: object) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"  # now() is when the transaction began


@compiles(DatabaseNow, "mysql", "mariadb")
def _on_mysql(*_: object, **__: object) -> str:
    return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
