"""Looks a database over: the tables' form, its settings, rows that lost what they belong to, totals and words reckoned anew.

It reads, page by page, beside a running service, and changes nothing, not even the tables' form.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from threadkeep.stores.doctor_logs import examine_logs
from threadkeep.stores.doctor_rows import ROW_CHECKS
from threadkeep.stores.engine import schema_of
from threadkeep.stores.findings import Check, Finding, fault, warning
from threadkeep.stores.schema import PREFIX, metadata
from threadkeep.stores.sql import SQLStore
from threadkeep.stores.versions import VERSION_TABLE, VERSIONS, stored_version

LEAST_PACKET = 64 * 1024 * 1024 + 1024 * 1024
"""Bytes that a statement with the largest message takes."""


def examine(store: SQLStore) -> Iterator[Check]:
    """One check after the other, each when it is done; after tables of another form, none."""
    with store.look("looking over the database") as connection:
        form = Check("tables", len(metadata.sorted_tables), "tables", tuple(_form(connection)))
        yield form
        yield Check("settings", len(_settings_of(connection)), "settings", tuple(_settings(connection)))
        yield _files(connection)
    if any(finding.grave for finding in form.findings):
        return
    for name, unit, check in ROW_CHECKS:
        with store.read(f"checking {name}") as connection:
            looked, findings = check(connection)
        yield Check(name, looked, unit, tuple(findings))
    yield from examine_logs(store)


# The tables' form.


def _form(connection: Connection) -> Iterator[Finding]:
    found = stored_version(connection)
    if found is None:
        yield fault("there are no tables of threadkeep: run `threadkeep migrate --database …`")
    elif found not in VERSIONS:
        yield fault(f"the tables are of version {found}, and this release knows versions up to {VERSIONS[-1]}: upgrade threadkeep")
    elif found != VERSIONS[-1]:
        yield fault(f"the tables are of version {found}, and this release needs {VERSIONS[-1]}: run `threadkeep migrate --database …`")
    else:
        if (schema := schema_of(connection)) is not None:  # what is compared is what stands in it
            connection.execute(text("SELECT set_config('search_path', quote_ident(:schema), true)"), {"schema": schema})
        options = {"compare_type": False, "version_table": VERSION_TABLE, "include_name": _is_ours}  # a database names types its own way
        for difference in compare_metadata(MigrationContext.configure(connection, opts=options), metadata):
            yield fault(f"the tables are not as they were made: {_said(difference)}. Restore them from a backup, or undo the change")


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or (name or "").startswith(PREFIX)


def _said(difference: Sequence[Any]) -> str:  # Any: Alembic's tuple, or a list of them
    """What would have to be done, and to what."""
    kind, *what = difference[0] if isinstance(difference, list) else difference
    names = [getattr(part, "name", part) for part in what if part is not None and not isinstance(part, dict)]
    return " ".join(map(str, [kind.replace("_", " "), *names]))


# Settings.


def _settings_of(connection: Connection) -> dict[str, str]:
    """What a database says of how it keeps what it was given."""
    names: tuple[str, ...]
    match connection.dialect.name:
        case "sqlite":
            names = ("journal_mode", "synchronous", "secure_delete")
            return {name: str(connection.exec_driver_sql(f"PRAGMA {name}").scalar()) for name in names}
        case "postgresql":
            names = ("fsync", "full_page_writes", "synchronous_commit", "server_encoding")
            return {name: str(connection.execute(text(f"SHOW {name}")).scalar()) for name in names}
        case _:
            names = ("innodb_flush_log_at_trx_commit", "innodb_doublewrite", "max_allowed_packet", "default_storage_engine")
            return {name: str(connection.execute(text(f"SELECT @@{name}")).scalar()) for name in names}


def _settings(connection: Connection) -> Iterator[Finding]:
    found = _settings_of(connection)
    match connection.dialect.name:
        case "sqlite":
            if found["journal_mode"] not in ("wal", "memory"):
                yield warning(f"journal_mode is {found['journal_mode']}: while somebody writes, nobody can read. Set it to WAL")
            if found["synchronous"] not in ("2", "3"):
                yield warning("synchronous is below FULL: what was acknowledged may be lost when the power fails")
            if found["secure_delete"] == "0":
                yield warning("secure_delete is off: what is deleted stays readable in the file")
        case "postgresql":
            for name in ("fsync", "full_page_writes", "synchronous_commit"):
                if found[name] == "off":
                    yield warning(f"{name} is off: what was acknowledged may be lost when the server or its machine fails")
            if found["server_encoding"] != "UTF8":
                yield fault(f"server_encoding is {found['server_encoding']}: names need UTF8")
        case _:
            if found["innodb_flush_log_at_trx_commit"] != "1":
                yield warning("innodb_flush_log_at_trx_commit is not 1: what was acknowledged may be lost when the server fails")
            if found["innodb_doublewrite"] in ("0", "OFF"):
                yield warning("innodb_doublewrite is off: a page may be half written when the power fails")
            if int(found["max_allowed_packet"]) < LEAST_PACKET:
                size = int(found["max_allowed_packet"]) / 1024 / 1024
                yield warning(f"max_allowed_packet is {size:.0f} MB: a larger message or picture is refused, though threadkeep takes 64 MB")
            yield from _engines(connection)


def _engines(connection: Connection) -> Iterator[Finding]:
    statement = text("SELECT table_name, engine FROM information_schema.tables WHERE table_schema = database() AND table_name LIKE :ours")
    for name, engine in connection.execute(statement, {"ours": PREFIX.replace("_", "\\_") + "%"}):
        if str(engine).lower() != "innodb":
            yield fault(f"{name} is kept by {engine}, which has no transactions: ALTER TABLE {name} ENGINE=InnoDB")


# What the database itself finds of its files.


def _files(connection: Connection) -> Check:
    match connection.dialect.name:
        case "sqlite":
            said = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
            found = [f"the file is damaged: {one}. Restore it from a backup, or try `sqlite3 FILE .recover`" for one in said if one != "ok"]
            return Check("file", int(connection.exec_driver_sql("PRAGMA page_count").scalar() or 0), "pages", tuple(map(fault, found)))
        case "postgresql":
            statement = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid::regclass::text LIKE :ours"
            rows = connection.execute(text(statement), {"ours": "%" + PREFIX.replace("_", "\\_") + "%"}).all()
            broken = [fault(f"index {name} is not valid: REINDEX INDEX {name}") for name, valid in rows if not valid]
            return Check("indexes", len(rows), "indexes", tuple(broken))
        case _:
            return _checked_tables(connection)


def _checked_tables(connection: Connection) -> Check:
    findings = []
    try:
        for table in metadata.sorted_tables:
            for _, _, kind, said in connection.execute(text(f"CHECK TABLE {table.name} QUICK")):
                if str(kind).lower() in ("error", "warning"):
                    findings.append(fault(f"{table.name} is damaged: {said}"))
    except DBAPIError as error:
        findings.append(warning(f"the tables could not be checked ({type(error.orig).__name__}): the database's user lacks a privilege"))
    return Check("files", len(metadata.sorted_tables), "tables", tuple(findings))
