"""Text on MariaDB and MySQL: any letter, compared as it is. The first release left it to what the database does by default."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from threadkeep.stores.migrations.steps import KEPT

revision = "0008"
down_revision = "0007"
CHARSET, COLLATION = KEPT["mysql_charset"], KEPT["mysql_collate"]


def upgrade() -> None:
    """Before, a model `GPT` could be added up with `gpt`, and a name outside of the database's letters was refused."""
    if op.get_bind().dialect.name not in ("mysql", "mariadb"):
        return
    bind = op.get_bind()
    ours = [name for name in sa.inspect(bind).get_table_names() if name.startswith("threadkeep_") and name != "threadkeep_version"]
    for table in ours:
        if COLLATION not in sa.inspect(bind).get_table_options(table).values():
            op.execute(f"ALTER TABLE {table} DEFAULT CHARACTER SET {CHARSET} COLLATE {COLLATION}")
        for column in sa.inspect(bind).get_columns(table):
            kind = column["type"]
            if not isinstance(kind, mysql.VARCHAR):
                continue
            said = kind.collation or kind.charset
            if said is not None and said != COLLATION:  # it is said of a column where it differs from its table
                op.alter_column(
                    table,
                    column["name"],
                    type_=mysql.VARCHAR(kind.length, charset=CHARSET, collation=COLLATION),
                    existing_nullable=column["nullable"],
                    existing_server_default=None if column["default"] is None else sa.text(column["default"]),
                )
