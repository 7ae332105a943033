"""Bytes are taken out of a message and put back: what a model is sent is what was given, to the letter."""

import asyncio
import json
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st

from threadkeep import AsyncMemory, Budget, ImagePart, Memory, Message, ScriptedBackend
from threadkeep.memory.blob import Blob, blobs_in, json_length
from threadkeep.memory.filling import filled
from threadkeep.stores.blobs import taken_out

data = st.binary(min_size=1, max_size=400)
heads = st.sampled_from(("image/png", "image/svg+xml;charset=utf-8", "application/pdf", "text/plain", "IMAGE/PNG"))
urls = st.builds(lambda head, one: f"data:{head};base64,{b64encode(one).decode()}", heads, data)
bare = data.map(lambda one: b64encode(one).decode())
awkward = st.sampled_from(
    ("data:", "data:image/png,x", "data:image/png;base64,", "data:a;base64,AA", "threadkeep:blob/", "base64", "\ud800")
)
strings = st.one_of(urls, bare, awkward, st.text(max_size=20), urls.map(lambda url: url + "\n"))
values = st.recursive(
    st.one_of(strings, st.integers(), st.none()), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner)
)
pictures = urls.filter(lambda url: url[5:11].lower() == "image/")
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, strings),
    st.builds(lambda url, extra: {"type": "image_url", "image_url": {"url": url, "extra": extra}}, pictures, values),
    st.builds(lambda one: {"type": "input_audio", "input_audio": {"data": one, "format": "wav"}}, strings),
    st.builds(lambda kind, one: {"type": kind, "inner": one}, st.sampled_from(("file", "video", "thinking")), values),
)


@given(st.lists(parts, min_size=1, max_size=5))
def test_what_is_taken_out_of_a_message_comes_back_to_the_letter(given_parts: list[dict[str, object]]) -> None:
    message = Message.from_dict({"role": "user", "content": given_parts, "beside": given_parts})
    stored, attached = taken_out(message, "message")
    brought = {one.blob.sha256: one.data for one in attached if one.data is not None}
    raw = json.loads(json.dumps(stored.to_dict()))
    assert len(json.dumps(raw["content"])) <= len(json.dumps(given_parts)) + 120 * sum(part["type"] == "image_url" for part in given_parts)
    assert {blob.sha256 for blob in blobs_in(raw["content"])} == brought.keys()
    assert filled([raw], lambda hashes: {sha256: brought[sha256] for sha256 in hashes}) == [message.to_dict()]
    assert taken_out(stored, "message")[0] == stored
    for before, after in zip(given_parts, raw["content"], strict=True):
        assert json_length(after) == len(json.dumps(before))


@given(data, heads)
def test_an_address_is_read_as_it_was_written(one: bytes, head: str) -> None:
    blob = Blob("0f" * 32, len(one), head)
    assert Blob.read(blob.url) == blob
    assert blob.length == len(blob.spelled(one))
    for other in (blob.url + "\n", " " + blob.url, blob.url.upper(), blob.url.replace("0f", "0g"), blob.url[:40]):
        assert Blob.read(other) is None


def test_words_of_an_address_or_of_base64_find_nothing(memory: Memory) -> None:
    session = memory.session("chat")
    session.append(Message.user([ImagePart.from_bytes(b"hens " * 100, "image/png")]), "Good morning.")
    assert session.search("threadkeep blob image png aGVucyBoZW5z") == []


def test_bytes_are_read_by_async_code_too(url: str) -> None:
    async def show() -> bytes:
        async with AsyncMemory(url, backend=ScriptedBackend([]), budget=Budget(4000)) as memory:
            session = memory.session("chat")
            (entry,) = await session.append(Message.user([ImagePart.from_bytes(b"a hen", "image/png")]))
            (part,) = entry.message.parts
            assert isinstance(part, ImagePart)
            return await session.blob(part)

    assert asyncio.run(show()) == b"a hen"
