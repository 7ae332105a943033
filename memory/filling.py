"""A request's messages with their bytes in place again, for a model that is sent them."""

from collections.abc import Callable, Collection, Mapping

from threadkeep.memory.blob import Blob, blobs_in, through


def filled(messages: list[dict[str, object]], load: Callable[[Collection[str]], Mapping[str, bytes]]) -> list[dict[str, object]]:
    """The messages, in OpenAI's format, with data URLs in place of the addresses of blobs.

    `load` is called once, with the hashes of all that they show. Where they show none it is not, and the list is the one that was given.
    """
    in_parts = [(at, parts) for at, message in enumerate(messages) if type(parts := message["content"]) is list]  # few, if any
    shown = {at: blobs for at, parts in in_parts if (blobs := blobs_in(parts))}
    if not shown:
        return messages
    loaded = load({blob.sha256 for blobs in shown.values() for blob in blobs})
    spelled = {blob.url: blob.spelled(loaded[blob.sha256]) for blobs in shown.values() for blob in blobs}

    def change(_: str, text: str) -> str:
        return spelled[blob.url] if (blob := Blob.read(text)) else text

    def with_bytes(message: dict[str, object]) -> dict[str, object]:
        parts = message["content"]
        assert isinstance(parts, list)
        return {**message, "content": [through(part, change) if isinstance(part, Mapping) else part for part in parts]}

    return [with_bytes(message) if at in shown else message for at, message in enumerate(messages)]
