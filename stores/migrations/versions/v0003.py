"""When a vector was made: one that upkeep makes during a turn counts from the next one on."""

import sqlalchemy as sa

from threadkeep.stores.migrations.steps import add_column

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Vectors that are there already count in every turn, as they did: 0 is before all of them."""
    add_column("threadkeep_vectors", sa.Column("made_at_seq", sa.BigInteger(), server_default="0", nullable=False))
