"""What a database's errors mean: which of ours each is, what to do about it, and whether the transaction may be run again.

A driver's own words can hold a row's values, so they are given only where nothing had been sent yet: when no connection could be made.
"""

import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import isgeneratorfunction
from types import FunctionType
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from threadkeep.memory.errors import StoreBusy, StoreError

WAIT_SECONDS = 30
"""How long one waits for another's transaction, on every database."""
TRIES = 12
"""How often a transaction is run that the database undid for the sake of another."""
PAUSE = 0.01
"""Seconds before it is run again: at first and on average, doubled each time up to half a second."""

Again = Literal["never", "once", "soon"]


class Meaning(NamedTuple):
    """What an error says."""

    kind: type[StoreError]
    what: str
    """What happened, and after a semicolon what to do."""
    again: Again = "never"


_STOPPED = "was stopped by a time limit of the server, or by its operator; try again, or raise the limit"
_UNDONE = Meaning(StoreBusy, "gave way to other transactions again and again; try again", "soon")
_LOST = Meaning(StoreError, "lost its connection; try again, and see that the server runs", "once")
_REFUSED = Meaning(StoreError, "brought a statement larger than the server's max_allowed_packet; raise that")
_FULL = Meaning(StoreError, "found no room; the disk or the tablespace is full: make room, then try again")
_READ_ONLY = Meaning(StoreError, "may only read; the database is read-only, a standby for example: name the one that takes writes")
_FORBIDDEN = Meaning(StoreError, "lacks a privilege; grant the database's user SELECT, INSERT, UPDATE and DELETE, and for migrating DDL")
_NO_TABLES = Meaning(StoreError, "found other tables than this release needs; run `threadkeep migrate`")
_CROWDED = Meaning(StoreBusy, "got no connection; the server has as many as it allows: try again, or give the engines smaller pools")
_STARTING = Meaning(StoreBusy, "found the server starting or stopping; try again")
_TOO_LARGE = Meaning(StoreError, "brought a value that its column does not hold; nothing is ever cut to fit: shorten it")

_POSTGRESQL: Mapping[str, Meaning] = {
    "40001": _UNDONE,
    "40P01": _UNDONE,
    "23505": _UNDONE,  # two made the same row at once: the second finds it when it looks again
    "55P03": Meaning(StoreBusy, f"waited {WAIT_SECONDS} s for another's transaction; try again"),
    "57014": Meaning(StoreBusy, _STOPPED),
    "25P03": Meaning(StoreBusy, _STOPPED),
    "57P03": _STARTING,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P05": _LOST,
    "53100": _FULL,
    "53300": _CROWDED,
    "25006": _READ_ONLY,
    "42501": _FORBIDDEN,
    "42P01": _NO_TABLES,
    "42703": _NO_TABLES,
    "3F000": _NO_TABLES,
    "22001": _TOO_LARGE,
    "54000": _TOO_LARGE,
    "22P05": Meaning(StoreError, "brought a letter that the database's encoding does not have; make the database with ENCODING 'UTF8'"),
}
_WAITED = Meaning(StoreBusy, f"waited {WAIT_SECONDS} s for another's transaction; try again", "soon")
_MYSQL: Mapping[int, Meaning] = {
    **dict.fromkeys((1213, 1020, 1062), _UNDONE),
    1205: _WAITED,
    1153: _REFUSED,
    **dict.fromkeys((1317, 1969, 3024), Meaning(StoreBusy, _STOPPED)),
    **dict.fromkeys((1927, 2006, 2013, 2014, 2055, 4031, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161), _LOST),
    **dict.fromkeys((3, 1021, 1026, 1114), _FULL),
    **dict.fromkeys((1040, 1203, 1226), _CROWDED),
    **dict.fromkeys((1036, 1290, 1792, 1836), _READ_ONLY),
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370), _FORBIDDEN),
    **dict.fromkeys((1054, 1146), _NO_TABLES),
    **dict.fromkeys((1264, 1366, 1406), _TOO_LARGE),
    1665: Meaning(StoreError, "cannot be written to the server's log; set binlog_format to ROW or MIXED"),
}
_FILE_FAILED = Meaning(StoreError, "could not read or write the file; see the disk, and its room")
_SQLITE: Mapping[int, Meaning] = {
    sqlite3.SQLITE_BUSY: Meaning(StoreBusy, f"found the database locked for {WAIT_SECONDS} s; try again"),
    sqlite3.SQLITE_LOCKED: Meaning(StoreBusy, "found the database locked; try again"),
    sqlite3.SQLITE_FULL: Meaning(StoreError, "found no room; the disk is full: make room, then try again"),
    sqlite3.SQLITE_IOERR: _FILE_FAILED,
    sqlite3.SQLITE_READONLY: Meaning(StoreError, "may only read; the file or its folder is read-only: let this user write to both"),
    sqlite3.SQLITE_CANTOPEN: Meaning(StoreError, "could not open the file; see that it and its folder may be read and written"),
    sqlite3.SQLITE_NOTADB: Meaning(StoreError, "found a file that is no SQLite database; name another"),
    sqlite3.SQLITE_CORRUPT: Meaning(
        StoreError, "found the file damaged; stop, copy it, and take a backup, or what sqlite3's .recover saves"
    ),
    sqlite3.SQLITE_TOOBIG: _TOO_LARGE,
}


@dataclass(slots=True)
class Attempt:
    """One run of a transaction."""

    committing: bool = False
    """All is said, and the database is asked to keep it: if the connection is lost now, nobody knows whether it does."""


@contextmanager
def typed_errors(doing: str, engine: Engine | None = None) -> Iterator[Attempt]:
    """The database's errors as ours. Neither their text nor what stands behind them holds a parameter: no message leaks into a log."""
    attempt, outside = Attempt(), sys.exception()
    try:
        yield attempt
    except PoolTimeout as error:
        raise StoreBusy(
            f"no connection came free while {doing}; nothing was written. Try again, or give the engine a larger pool"
        ) from error
    except DBAPIError as error:
        typed, again = _typed(_first(error, outside), doing, attempt.committing, engine)
        vars(typed)[_AGAIN] = again
        raise typed from None


_AGAIN = "_threadkeep_again"


def _first(error: DBAPIError, outside: BaseException | None) -> DBAPIError:
    """What went wrong first: after it the rollback may have failed too. What the caller was handling is none of it."""
    first, before = error, error.__context__
    while before is not None and before is not outside:
        if isinstance(before, DBAPIError):
            first = before
        before = before.__context__
    return first


def _typed(error: DBAPIError, doing: str, committing: bool, engine: Engine | None) -> tuple[StoreError, Again]:
    meaning, name = _meaning(error)
    if meaning is None and error.statement is None and not error.connection_invalidated and not committing and engine is not None:
        said = _said_of_connecting(error.orig, engine)
        crowded = any(words in said for words in ("too many clients", "connection slots", "too many connections"))
        if not crowded and "the database system is" not in said:  # starting up, shutting down, in recovery
            return StoreError(f"the database could not be reached while {doing}; nothing was written: {said}"), "never"
        meaning = _CROWDED if crowded else _STARTING
    if meaning in (_LOST, _REFUSED) or error.connection_invalidated:
        packet = None if engine is None else _too_large_a_packet(error, engine)
        if packet is not None:
            return StoreError(f"the database refused what came while {doing}; nothing was written. {packet}"), "never"
        meaning = _LOST
    if committing and (meaning is _LOST or meaning is _FILE_FAILED):
        return StoreError(
            f"the database failed while {doing}, just as it was being committed: it may be written, or not ({name}). The same call with "
            "the same key writes it once; without a key, look before writing it again"
        ), "never"
    if meaning is None:
        return StoreError(f"the database failed while {doing}; nothing was written: {name}"), "never"
    what, _, advice = meaning.what.partition("; ")
    advice = advice[:1].upper() + advice[1:]
    return meaning.kind(f"the transaction {what} while {doing}; nothing was written ({name}). {advice}"), meaning.again


def _meaning(error: DBAPIError) -> tuple[Meaning | None, str]:
    """What a driver's error means, where that is known, and a name for it that holds nothing of a row."""
    orig = error.orig
    kind = type(orig).__name__
    if isinstance(orig, sqlite3.Error):
        code = getattr(orig, "sqlite_errorcode", None)  # none where the driver itself refuses
        return (None if code is None else _SQLITE.get(code & 0xFF)), str(orig)
    state = getattr(orig, "sqlstate", None)  # psycopg's; pymysql's errors have one too, but what they mean stands in their number
    code = orig.args[0] if orig is not None and orig.args else None
    if isinstance(code, int):
        return _MYSQL.get(code), f"error {code}"
    if isinstance(state, str):
        return _POSTGRESQL.get(state, _LOST if state.startswith("08") else None), f"{state} {kind}"
    return None, kind


def _said_of_connecting(orig: BaseException | None, engine: Engine) -> str:
    """What the driver says of a connection that could not be made: host, port, user and reason, and never a password."""
    said = str(orig.args[-1] if orig is not None and orig.args else orig).strip().splitlines()[0]
    return said.replace(str(engine.url.password), "***") if engine.url.password else said


def _too_large_a_packet(error: DBAPIError, engine: Engine) -> str | None:
    """Whether MariaDB or MySQL hung up because a value was larger than it takes, which it seldom has the time to say."""
    if engine.dialect.name not in ("mysql", "mariadb"):
        return None
    largest = max(map(_size, _values(error.params)), default=0)
    try:
        with engine.connect() as connection:
            limit = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
    except DBAPIError:  # it is the server that went away
        return None
    if largest + 1024 <= limit:
        return None
    return (
        f"A value takes {largest} bytes as it is sent, and the server takes statements of {limit}: set its max_allowed_packet to "
        f"{-(-largest // 2**20) + 1}M or more, for example in the section [mysqld] of its settings"
    )


def _values(params: object) -> Iterator[object]:
    if isinstance(params, Mapping):
        yield from params.values()
    elif isinstance(params, list | tuple):
        for one in params:
            yield from _values(one) if isinstance(one, Mapping | list | tuple) else (one,)


def _size(value: object) -> int:
    """Bytes of a value inside a statement: bytes are sent as hexadecimals, and in text some letters take another."""
    if isinstance(value, bytes | bytearray):
        return 2 * len(value)
    if isinstance(value, str) and len(value) > 1024:
        return len(value.encode(errors="surrogatepass")) + sum(value.count(letter) for letter in "\\\"'\0\n\r\x1a")
    return 0


_T = TypeVar("_T")


def whole_again(made: type[_T]) -> type[_T]:
    """A class of whose public methods each is one transaction: one that the database undid is run again, whole.

    The database undoes a transaction that waits in a circle with others, or that made a row which another made at the same moment;
    and a connection can be lost before anything was committed. Whoever called sees none of it, but the time it takes. Methods that hand
    a transaction out are left as they are.
    """
    for name, found in list(vars(made).items()):
        if (
            isinstance(found, FunctionType)
            and not name.startswith("_")
            and not hasattr(found, "__wrapped__")
            and not isgeneratorfunction(found)
        ):
            setattr(made, name, _again(found))
    return made


def _again(run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def again(*args: Any, **given: Any) -> Any:
        tries, lost, end = 0, 0, time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return run(*args, **given)
            except StoreError as error:
                tries += 1
                reason: Again = vars(error).get(_AGAIN, "never")
                lost += reason == "once"
                if reason == "never" or lost > 1 or tries >= TRIES or time.monotonic() > end:
                    raise
            if not lost:
                time.sleep(min(PAUSE * 2**tries, 0.5) * random.uniform(0, 1))

    return again
