"""A model of a few layers made of a whole one: its tokens and its template are the same, it is read sixty times as fast, and it babbles.

For what does not depend on what a model says: whether a context fits the engine's window, and what the engine finds in its cache.
"""

import argparse
import os
import struct
from pathlib import Path

from _common import KEPT

from threadkeep.models.fetch import locate

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by GGUF's number of its type."""
TEXT, ARRAY = 8, 9


class Reader:
    """Reads a GGUF file's head, from one place on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def text(self) -> bytes:
        (length,) = self.take("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def skip(self, kind: int) -> None:
        if kind == TEXT:
            self.text()
        elif kind == ARRAY:
            of, length = self.take("IQ")
            for _ in range(length if of in (TEXT, ARRAY) else 0):
                self.skip(of)
            self.at += SIZES.get(of, 0) * length
        else:
            self.at += SIZES[kind]


def first_layers(model: str, layers: int) -> Path:
    """The file of a model's first layers, made once."""
    made = KEPT / f"{model}-{layers}.gguf"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        building = made.with_suffix(f".{os.getpid()}")
        building.write_bytes(_cut(locate(model).read_bytes(), layers))
        building.replace(made)
    return made


def _cut(data: bytes, layers: int) -> bytes:
    reader, align = Reader(data), 32
    _magic, version, tensors, pairs = reader.take("4sIQQ")
    begin, counts = reader.at, []
    for _ in range(pairs):
        key, (kind,) = reader.text(), reader.take("I")
        if key.endswith(b".block_count"):
            counts.append(reader.at - begin)
        reader.skip(kind)
    settings = bytearray(data[begin : reader.at])
    for place in counts:
        struct.pack_into("<I", settings, place, layers)
    infos = []
    for _ in range(tensors):
        name, (dimensions,) = reader.text(), reader.take("I")
        infos.append((name, reader.take(f"{dimensions}Q"), *reader.take("IQ")))
    start = -(-reader.at // align) * align
    offsets = sorted(offset for *_, offset in infos)
    ends = dict(zip(offsets, [*offsets[1:], len(data) - start], strict=True))
    kept = [info for info in infos if not info[0].startswith(b"blk.") or int(info[0].split(b".")[1]) < layers]
    head = bytearray(struct.pack("<4sIQQ", b"GGUF", version, len(kept), pairs) + settings)
    body = bytearray()
    for name, shape, kind, offset in kept:
        head += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(body))
        body += data[start + offset : start + ends[offset]]
        body += bytes(-len(body) % align)
    return bytes(head + bytes(-len(head) % align) + body)


def arguments(description: str | None, *, turns: int) -> tuple[argparse.Namespace, str | Path]:
    """What a benchmark that only counts tokens is given on the command line (turns and threads), and the model it asks."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=turns)
    parser.add_argument("--threads", type=int, help="of the engine; 1 where other work takes the cores")
    parser.add_argument("--whole", action="store_true", help="with all layers of the model")
    given = parser.parse_args()
    return given, "smollm2-135m" if given.whole else first_layers("smollm2-135m", 1)
