"""A thousand owners whose names look alike, on each database: how many rows any of them is shown of another. The bound is none.

Each has two sessions, and asks everything of `threadkeep/owner_contract.py`; then every second one is deleted, and the others ask again.

python benchmarks/owners.py [--owners 1000] [--kinds sqlite …]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from _common import verdict

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import databases

from threadkeep import Budget, Memory, ScriptedBackend
from threadkeep.owner_contract import READS, fill, foreign, look_alikes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--owners", type=int, default=1000)
    parser.add_argument("--kinds", nargs="*", default=["sqlite", *databases.KINDS], help="of databases")
    given = parser.parse_args()
    owners = look_alikes(given.owners)
    for kind in given.kinds:
        if kind != "sqlite" and isinstance(why := databases.server(kind), str):
            print(f"{kind}: not measured, {why}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/chat.db" if kind == "sqlite" else databases.clean_database(kind)
            with Memory(url, backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500), upkeep=False) as memory:
                began = time.perf_counter()
                for number, owner in enumerate(owners):
                    fill(memory, owner, number, much=number % 20 == 0)
                found = [line for line in foreign(memory, owners) if "nothing of his own" not in line]
                for owner in owners[::2]:
                    memory.delete_owner(owner)
                reads = {name: read for name, read in READS.items() if name != "a key that was used"}  # that writes
                found += [line for line in foreign(memory, owners, reads) if "nothing of his own" not in line]
                print(f"  {len(owners):,} owners, {len(READS) + len(reads)} questions each, in {time.perf_counter() - began:.0f} s")
                print(*found[:5], sep="\n", end="\n" if found else "")
                verdict(f"{kind}: answers with words of another owner", len(found), 0)


if __name__ == "__main__":
    main()
