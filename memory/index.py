"""What can be recalled: the entries before the live message as columns, where their terms stand, and their vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from threadkeep.memory.history import Entry

    Integers: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.int64]]"
    Matrix: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
    Vector: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float32]]"

Scope: TypeAlias = Literal["session", "owner"]
"""Whose entries: this session's, or those of all sessions of its owner."""
ROLES = ("system", "developer", "user", "assistant", "tool")
"""A role's number in `Index.roles` is its place here."""


class Posting(NamedTuple):
    """Where one term stands."""

    rows: "Integers"
    """Rows of the index, ascending, shape (postings,)."""
    frequencies: "Integers"
    """How often it stands in each, shape (postings,)."""


class Lookup(Protocol):
    """How an index reads what it does not hold."""

    def postings(self, terms: Sequence[str]) -> Mapping[str, Posting]:
        """Where these terms stand; a term that stands nowhere is left out.

        One that stands in more than 3 of 10 entries, where there are over 1,000, tells none from the others: it is given without rows.
        """

    def entries(self, rows: Sequence[int]) -> Sequence["Entry"]:
        """The entries of these rows, in their order."""


@dataclass(frozen=True, eq=False)
class Index:
    """The entries that may be recalled, a row each; every column has shape (rows,).

    Entries from the live user message on, leading system messages, late results and erased entries are not in it; of other sessions,
    only what was said before that message is. Rows of one session stand together in the order of their seqs: first those of the other
    sessions, the oldest session first, then those of the asked one. Not to be written to: it is shared.
    """

    sessions: tuple[str, ...]
    """Names; the first is the session that is asked."""
    session: "Integers"
    """Which of `sessions` a row is of."""
    seqs: "Integers"
    tokens: "Integers"
    """What each costs once its turn is no longer live."""
    created_us: "Integers"
    """When each was said, in microseconds since 1970, UTC."""
    groups: "Integers"
    """The first seq of its group."""
    roles: "Integers"
    vectors: "Matrix | None"
    """Shape (rows, dimensions), each of length 1, zeros where none is stored; None: no embedder, or none is stored at all."""
    query: "Vector | None"
    """The live user message's vector, shape (dimensions,); None: it has none."""
    lookup: Lookup

    def __len__(self) -> int:
        return len(self.seqs)
