"""What can be recalled: the entries before the live message as columns, where their terms stand, and their vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from threadkeep.memory.history import Entry

    Integers: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.int64]]"
    Matrix: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
    Halves: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.float16]]"
    Vector: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float32]]"
    Bits: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.int32]]"

Scope: TypeAlias = Literal["session", "owner"]
"""Whose entries: this session's, or those of all sessions of its owner."""
ROLES = ("system", "developer", "user", "assistant", "tool")
"""A role's number in `Index.roles` is its place here."""
WIDENED = 1024
"""Vectors that are widened at once: no more than stay in a processor's cache."""
FACTOR = 2.0**112
"""What float16's exponents are short of, read as float32's."""


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
    halves: "Halves | None"
    """Vectors as stored, shape (rows, dimensions), each of length 1, zeros where none is stored; None: no embedder, or none is stored."""
    query: "Vector | None"
    """The live user message's vector, shape (dimensions,); None: it has none."""
    lookup: Lookup

    def __len__(self) -> int:
        return len(self.seqs)

    @property
    def vectors(self) -> "Matrix | None":
        """The vectors as float32, made anew whenever they are asked for: of a long log, `cosines` takes less time and memory."""
        import numpy as np  # importing threadkeep does not

        if self.halves is None:
            return None
        made = _widened(self.halves, np.empty(self.halves.shape, np.int32)) * np.float32(FACTOR)
        made.flags.writeable = False
        return made

    def cosines(self) -> "Vector | None":
        """Each row's cosine with the query, shape (rows,), 0 where no vector is stored; None: no vectors, or no query."""
        import numpy as np

        if self.halves is None or self.query is None:
            return None
        made, query = np.empty(len(self), np.float32), self.query * np.float32(FACTOR)
        room = np.empty((WIDENED, len(query)), np.int32)
        for first in range(0, len(self), WIDENED):
            some = self.halves[first : first + WIDENED]
            # not BLAS: its threads wait for each other where cores are few
            np.einsum("ij,j->i", _widened(some, room[: len(some)]), query, out=made[first : first + WIDENED])
        return made


def _widened(halves: "Halves", bits: "Bits") -> "Matrix":
    """float16 to float32, exactly but for `FACTOR`, by which they are too small: all finite numbers, many times as fast as numpy's own.

    The bits of one are shifted to where the other has them (the sign spreads, and is cut to its place). The exponent's zero lies
    elsewhere: hence the factor, a power of 2.
    """
    import numpy as np

    np.copyto(bits, halves.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70002000), out=bits)  # 0x8fffe000
    return bits.view(np.float32)
