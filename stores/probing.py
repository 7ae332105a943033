"""Statements that look up many keys at once, so that each key is found by the whole index, whatever a database believes of its tables.

A list of values is an IN list. PostgreSQL, though, may rather read all that stands under the columns before it, if it believes that this is
little: it judges by the mean of all owners and sessions, and one of them may hold nearly everything. There the list is a table that leads a
join, and the part below is planned for one key alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import ARRAY


@dataclass(frozen=True, slots=True)
class ByKeys:
    """The same statement in both forms."""

    elsewhere: Select[Any]
    postgresql: Select[Any]

    def on(self, connection: Connection) -> Select[Any]:
        """The one for this database."""
        return self.postgresql if connection.dialect.name == "postgresql" else self.elsewhere


def by_keys(
    columns: Sequence[ColumnElement[Any]],
    table: Table,
    condition: ColumnElement[bool],
    lists: Mapping[str, str],
    *,
    count_by: str | None = None,
    order_by: str | None = None,
) -> ByKeys:
    """Rows of a table of which some columns have a value of a list each.

    Args:
        columns: what is selected of the table.
        table: the only one.
        condition: on its other columns.
        lists: by column, the name under which its list is bound, without repetitions.
        count_by: select this column and how many rows there are of it, instead.
        order_by: a column that is selected.
    """
    named = [table.c[name].in_(bindparam(bound, expanding=True)) for name, bound in lists.items()]
    wanted = {
        name: func.unnest(bindparam(bound, type_=ARRAY(table.c[name].type))).table_valued("value", name=f"wanted_{name}").render_derived()
        for name, bound in lists.items()
    }
    one = select(*columns).where(condition, *(table.c[name] == value.c.value for name, value in wanted.items()))
    found = one.offset(literal_column("0")).lateral("found")  # it keeps the part below from being joined in another order
    source: Any = None
    for part in (*wanted.values(), found):
        source = part if source is None else source.join(part, true())
    if count_by is not None:
        elsewhere = select(table.c[count_by], func.count()).where(condition, *named).group_by(table.c[count_by])
        return ByKeys(elsewhere, select(found.c[count_by], func.count()).select_from(source).group_by(found.c[count_by]))
    elsewhere, postgresql = select(*columns).where(condition, *named), select(*found.c).select_from(source)
    if order_by is not None:
        elsewhere, postgresql = elsewhere.order_by(table.c[order_by]), postgresql.order_by(found.c[order_by])
    return ByKeys(elsewhere, postgresql)
