"""What a session's handle does with its branches: forking, editing, switching, listing them."""

import time
from collections.abc import Callable
from typing import TypeVar

from threadkeep.memory.branch import Branch
from threadkeep.memory.errors import Conflict, InvalidSetting
from threadkeep.memory.history import Entry
from threadkeep.memory.holder import is_dead
from threadkeep.memory.message import JSON, MessageLike, read_message
from threadkeep.memory.setup import Setup
from threadkeep.memory.waiting import WAIT_SECONDS, waits
from threadkeep.stores.appending import Appended
from threadkeep.stores.branches import Branches
from threadkeep.stores.sql import check_limit, check_name
from threadkeep.stores.turns import Busy

Done = TypeVar("Done")


class Branching:
    """The part of a `Session` that is about its branches."""

    _setup: Setup
    name: str
    owner: str

    def fork(self, name: str, *, at: int | None = None, timeout: float = WAIT_SECONDS) -> Branch:
        """A new branch that shares everything up to an entry. The session goes on there; the branch it was on stays as it is.

        Nothing is copied but pins, so it takes the same time however long the session is.

        Args:
            name: of the new branch, unused in this session: 1 to 255 characters.
            at: the seq of the last shared entry; None: all are shared; 0: none is.
            timeout: seconds to wait while a turn holds the session.

        Raises:
            NotFound: there is no such session or entry.
            InvalidSetting: the name is in use, or is none.
            Conflict: a turn held the session for all that time.
        """
        return self._when_free(self.to_fork(name, at), timeout)

    def edit(
        self, seq: int, message: MessageLike, *, name: str | None = None, metadata: JSON | None = None, timeout: float = WAIT_SECONDS
    ) -> Entry:
        """Put a message in the place of an entry, on a new branch: what followed the entry stays on the old one, with the entry itself.

        A user's message is answered by `regenerate()`, or by `turn(None)`.

        Args:
            seq: the entry's, whatever its role: a call whose results stay behind gets such that say so, as everywhere.
            message: in any of the forms that a message may have.
            name: of the new branch; None: one is made, such as `12-edit-9f3a`.
            metadata: kept with the message, as `append` does; that of the old entry stays with it.
            timeout: seconds to wait while a turn holds the session.

        Raises:
            NotFound: there is no such session or entry.
            InvalidSetting: the name is in use, or is none.
            Conflict: a turn held the session for all that time.
        """
        return self._when_free(self.to_edit(seq, message, name, metadata), timeout)

    def switch(self, name: str, *, timeout: float = WAIT_SECONDS) -> Branch:
        """Go on on another branch: from now on, everything that is read and said in this session is that branch's.

        Raises:
            NotFound: there is no such session or branch.
            Conflict: a turn held the session for all that time.
        """
        return self._when_free(self.to_switch(name), timeout)

    def branches(self, after: str | None = None, limit: int = 100) -> list[Branch]:
        """A page of the session's branches, the newest first: at most `limit` behind the one named `after`.

        Raises:
            NotFound: there is no such session, or no branch to list after.
        """
        behind = None if after is None else check_name(after, "a branch's name")
        return self._branches.page(self.owner, self.name, after=behind, limit=check_limit(limit))

    def to_fork(self, name: str, at: int | None) -> Callable[[], Branch | Busy]:
        """Forks if no turn holds the session."""
        wanted = check_name(name, "a branch's name")
        if at is not None and type(at) is not int:
            raise InvalidSetting(f"fork(at={at!r:.80}): an entry's seq, or 0")
        return lambda: self._branches.fork(self.owner, self.name, wanted, at)

    def to_edit(self, seq: int, message: MessageLike, name: str | None, metadata: JSON | None) -> Callable[[], Entry | Busy]:
        """Edits if no turn holds the session. The message is counted, and a user's embedded, here."""
        wanted = None if name is None else check_name(name, "a branch's name")
        if type(seq) is not int:
            raise InvalidSetting(f"edit({seq!r:.80}): an entry's seq")
        read = read_message(message)
        if read.role == "user":  # what recall asks with, once it is answered
            prepared, call = self._setup.prepare_user(read, metadata)
        else:
            prepared, call = self._setup.prepare(read, metadata=metadata), None

        def edit() -> Entry | Busy:
            tokenizer = self._setup.counting.name
            added = self._branches.edit(self.owner, self.name, seq, prepared, wanted, tokenizer, call)
            if not isinstance(added, Appended):
                return added
            self._setup.upkeep.notify(self.owner, self.name)
            return added.entries[0]

        return edit

    def to_switch(self, name: str) -> Callable[[], Branch | Busy]:
        """Switches if no turn holds the session."""
        wanted = check_name(name, "a branch's name")

        def switch() -> Branch | Busy:
            branch = self._branches.switch(self.owner, self.name, wanted)
            if isinstance(branch, Branch):
                self._setup.upkeep.notify(self.owner, self.name)  # it may have been left before its own was done
            return branch

        return switch

    def never_free(self, timeout: float) -> Conflict:
        """The error for having waited in vain."""
        return Conflict(f"a turn held session {self.name!r} for {timeout:g} s: it goes on on another branch when no turn is open")

    @property
    def _branches(self) -> Branches:
        return Branches(self._setup.store, is_dead, self._setup.prepare_draft)

    def _when_free(self, work: Callable[[], Done | Busy], timeout: float) -> Done:
        for pause in waits(timeout):
            done = work()
            if not isinstance(done, Busy):
                return done
            time.sleep(pause)
        raise self.never_free(timeout)
