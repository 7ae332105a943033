"""The steps that migrations are made of. Each does nothing where it was done before, so a migration that was cut off can be run again."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

KEPT: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
"""How MariaDB and MySQL keep a table, whatever they do by default: with transactions, any letter, and text compared as it is."""


def create_table(name: str, *parts: sa.schema.SchemaItem, **options: Any) -> sa.Table:
    table = sa.Table(name, sa.MetaData(), *parts, **KEPT, **options)
    table.create(op.get_bind(), checkfirst=True)
    return table


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False) -> None:
    if name not in (index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)):
        op.create_index(name, table, columns, unique=unique)


def drop_index(name: str, table: str) -> None:
    if name in (index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)):
        op.drop_index(name, table_name=table)


def add_column(table: str, column: sa.Column[Any]) -> None:
    if column.name not in (found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)):
        op.add_column(table, column)
