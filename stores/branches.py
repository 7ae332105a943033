"""What is done with a session's branches. Each method is one transaction."""

from collections.abc import Callable

from sqlalchemy import Connection

from threadkeep.memory.branch import Branch
from threadkeep.stores import branch_queries, ledger, queries, turn_queries, turns
from threadkeep.stores.appending import Appended, append, counted_by
from threadkeep.stores.branching import check_seq, fork, new_name
from threadkeep.stores.faults import whole_again
from threadkeep.stores.ledger import NewCall
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.rows import Prepared
from threadkeep.stores.sql import SQLStore, unknown_session
from threadkeep.stores.turns import Busy


@whole_again
class Branches:
    """The branches of a store's sessions. Who holds a session keeps it where it is: then it is said who that is.

    Args:
        is_dead: whether a turn's holder is known to be gone.
        settle_draft: a dead holder's draft as the entry that it becomes.
    """

    def __init__(self, store: SQLStore, is_dead: Callable[[str], bool], settle_draft: Callable[[str], Prepared]) -> None:
        self._store, self._is_dead, self._settle_draft = store, is_dead, settle_draft

    def fork(self, owner: str, name: str, branch: str, at: int | None) -> Branch | Busy:
        """A new branch that shares everything up to entry `at`, or to the head, and is the active one from now on.

        Raises:
            NotFound: there is no such session or entry.
            InvalidSetting: the session has a branch of this name.
        """
        with self._store.write("forking a session") as connection:
            session = self._free(connection, owner, name)
            if isinstance(session, Busy):
                return session
            forked = fork(connection, session, branch, session.head.seq if at is None else at)
            return branch_queries.active_branch(connection, forked)

    def edit(
        self, owner: str, name: str, seq: int, prepared: Prepared, branch: str | None, tokenizer: str, call: NewCall | None = None
    ) -> Appended | Busy:
        """A new active branch that has a message in the place of entry `seq`, and nothing behind it; `call`: the embedder's.

        Raises:
            NotFound: there is no such session or entry.
            InvalidSetting: the session has a branch of this name.
        """
        with self._store.write("editing a session") as connection:
            session = self._free(connection, owner, name)
            if isinstance(session, Busy):
                return session
            check_seq(session, seq, 1)
            session = counted_by(connection, session, tokenizer)
            forked = fork(connection, session, branch or new_name(connection, session, f"{seq}-edit"), seq - 1)
            if call is not None:
                ledger.add_call(connection, forked, None, call)
            return append(connection, forked, [prepared])

    def switch(self, owner: str, name: str, branch: str) -> Branch | Busy:
        """Let the session go on on another of its branches.

        Raises:
            NotFound: there is no such session or branch.
        """
        with self._store.write("switching branches") as connection:
            session = self._free(connection, owner, name)
            if isinstance(session, Busy):
                return session
            wanted = branch_queries.need_branch(connection, session, branch)
            branch_queries.activate(connection, session, wanted.branch_id)
            return branch_queries.active_branch(connection, wanted)

    def page(self, owner: str, name: str, *, after: str | None, limit: int) -> list[Branch]:
        """The session's branches, the newest first; those behind the one named `after`.

        Raises:
            NotFound: there is no such session, or no branch to list after.
        """
        with self._store.read("listing branches") as connection:
            session = _need(connection, owner, name)
            mark = None if after is None else branch_queries.need_branch(connection, session, after).branch_id
            return branch_queries.list_branches(connection, session, mark, limit)

    def _free(self, connection: Connection, owner: str, name: str) -> SessionRow | Busy:
        """The session, its dead holder's turn ended; or who holds it."""
        session = _need(connection, owner, name, lock=True)
        newest = turn_queries.newest_turn(connection, session)
        if newest is None or newest.state != "open":
            return session
        if turns.is_alive(newest, self._is_dead):
            return Busy(newest.id, newest.until_us)
        return turns.settle(connection, session, newest, self._settle_draft)


def _need(connection: Connection, owner: str, name: str, *, lock: bool = False) -> SessionRow:
    session = queries.find_session(connection, owner, name, lock=lock)
    if session is None:
        raise unknown_session(name)
    return session
