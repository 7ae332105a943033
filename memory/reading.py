"""What a session's handle reads: the log by page, what was said about something, bytes, and model calls."""

from threadkeep.memory.blob import Blob, sha256_of
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import Entry
from threadkeep.memory.index import Scope
from threadkeep.memory.message import ImagePart
from threadkeep.memory.searching import Found, search
from threadkeep.memory.setup import Setup
from threadkeep.stores.ledger import CallRow
from threadkeep.stores.sql import check_limit, check_name


class Reading:
    """The part of a `Session` that changes nothing."""

    _setup: Setup
    name: str
    owner: str

    def entries(self, after: int = 0, limit: int = 100, *, branch: str | None = None) -> list[Entry]:
        """A page of the log, oldest first: at most `limit` entries behind seq `after`; of the active branch, or of the one named.

        Raises:
            NotFound: there is no such session, or no such branch of it.
        """
        if not isinstance(after, int):
            raise InvalidSetting(f"entries(after={after!r:.80}): an entry's seq, or 0")
        named = None if branch is None else check_name(branch, "a branch's name")
        return self._setup.store.entries(self.owner, self.name, after=max(0, after), limit=check_limit(limit), branch=named)

    def blob(self, blob: Blob | ImagePart | str) -> bytes:
        """The bytes that a stored message shows: named by its `ImagePart`, its `blob`, or the address in a part of another kind.

        Raises:
            NotFound: this owner does not have it.
            InvalidSetting: it names nothing that is kept in a store.
        """
        return self._setup.store.blob(self.owner, sha256_of(blob))

    def search(self, text: str, k: int = 10, *, scope: Scope = "session") -> list[Found]:
        """What was said about a text: entries as `Recall` ranks them, each with what its score is made of.

        Args:
            text: a question, or words.
            k: the most entries that are returned, the best first.
            scope: `session`, or `owner`: the owner's sessions, the 2,000 that were used last.

        Raises:
            NotFound: there is no such session.
        """
        return search(self._setup, self.owner, self.name, text, k, scope)

    def calls(self, after: int = 0, limit: int = 100) -> list[CallRow]:
        """A page of the session's model calls, oldest first: replies, summaries, embeddings; with tokens, milliseconds, and what they cost.

        Args:
            after: the `id` of the call before the first; 0: from the beginning.
            limit: the most that are returned.

        Raises:
            NotFound: there is no such session.
        """
        if not isinstance(after, int):
            raise InvalidSetting(f"calls(after={after!r:.80}): a call's id, or 0")
        least = min(max(0, after), 2**63 - 1)
        return self._setup.store.calls(self.owner, self.name, after=least, limit=check_limit(limit))
