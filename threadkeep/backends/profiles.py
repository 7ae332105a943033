"""What each provider's OpenAI-compatible API accepts, as profiles, and which of them a base and a model get.

Each says what it rests on: the provider's documentation, or a public report with the API's own words.
"""

import re
from urllib.parse import urlsplit

from threadkeep.memory.fitting import THOUGHT, Profile

OPENAI = Profile(name="openai", tool_ids=r".{1,40}")
"""OpenAI and Azure: system and developer messages anywhere.

Ids of tool calls have at most 40 characters ("string too long. Expected a string with maximum length 40": vercel/ai#5171).
"""
ANTHROPIC = Profile(
    name="anthropic",
    system="first",
    developer=False,
    alternation=True,
    structured_output=False,
    tool_ids=r"[a-zA-Z0-9_-]{1,64}",
    keys=frozenset({"role", "content", "tool_calls", "tool_call_id"}),
    empty=False,
)
"""Claude: one system message at the head, to which Anthropic would otherwise move every later one; `name` and
`response_format` are ignored. No message is empty: "all messages must have non-empty content except for the optional final assistant
message", also at the compatible API (microsoft/autogen#6083).

Sources: docs.anthropic.com/en/api/openai-sdk, "System / Developer message hoisting" and the table of fields. Tool ids must match
`^[a-zA-Z0-9_-]+$`, those of other providers often do not (langchain-ai/langchain#37756, maximhq/bifrost#5097).
"""
MISTRAL = Profile(
    name="mistral",
    system="first",
    developer=False,
    alternation=True,
    tool_ids=r"[a-zA-Z0-9]{9}",
    keys=frozenset({"role", "content", "name", "tool_calls", "tool_call_id"}),
    empty=False,
)
"""Mistral's models, wherever they run: roles in turns, and ids of exactly nine letters and digits.

"Tool call id was … but must be a-z, A-Z, 0-9, with a length of 9" (langchain-ai/langchain#24668), also behind OpenRouter
(openclaw/openclaw#57672) and with vLLM (anomalyco/opencode#7488). "After the optional system message, conversation roles must alternate"
(vllm-project/vllm#6862). Keys it does not know are refused ("Extra inputs are not permitted": charmbracelet/crush#1590). A reply that said
nothing is refused later ("Assistant message must have either content or tool_calls, but not none": OpenHands/OpenHands#8685).
"""
GEMINI = Profile(
    name="gemini",
    system="first",
    developer=False,
    alternation=True,
    keys=frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "extra_content"}),
    empty=False,
)
"""Gemini: one system instruction, and a call of tools only behind a user's message or a tool's result, which turns make sure of.

"Please ensure that function call turn comes immediately after a user turn or after a function response turn"
(google-gemini/gemini-cli#11814). Empty messages are a bad request there too (microsoft/autogen#6063). `extra_content` carries the thought
signature of a tool call, without which Gemini 3 refuses the call
(ai.google.dev/gemini-api/docs/thought-signatures).
"""
DEEPSEEK = Profile(
    name="deepseek",
    system="first",
    developer=False,
    alternation=True,
    keys=frozenset({"role", "content", "name", "tool_calls", "tool_call_id", THOUGHT}),
)
"""DeepSeek's own API: what the model thought goes back to it.

In thinking mode, which is on unless a request says otherwise, the `reasoning_content` of turns with tool calls "must be fully passed back
to the API in all subsequent requests", otherwise it "will return a 400 error" (api-docs.deepseek.com/guides/thinking_mode).
"""
COMPATIBLE = Profile(
    name="compatible",
    system="first",
    developer=False,
    alternation=True,
    keys=frozenset({"role", "content", "name", "tool_calls", "tool_call_id"}),
)
"""Everything else: llama-server, vLLM and other servers that apply a model's own template, and providers of open models.

Templates refuse what is not system, user, assistant, user …: "System message must be at the beginning" (Qwen3.5 and later:
ggml-org/llama.cpp#27367), "Conversation roles must alternate" (Gemma 3 and others: suitenumerique/conversations#197), "Unexpected
message role" for `developer` (ogx-ai/ogx#6069, DeepSeek: earendil-works/pi#1048). What all of them accept is sent.
"""
PROFILES = {profile.name: profile for profile in (OPENAI, ANTHROPIC, MISTRAL, GEMINI, DEEPSEEK, COMPATIBLE)}
"""By name."""

_HOSTS = (
    (r"api\.openai\.com|.*\.openai\.com|.*\.azure\.com|.*\.azure\.us", OPENAI),
    (r"api\.anthropic\.com", ANTHROPIC),
    (r"(.*\.)?mistral\.ai", MISTRAL),
    (r"(.*[.-])?(generativelanguage|aiplatform)\.googleapis\.com", GEMINI),
    (r"api\.deepseek\.com", DEEPSEEK),
)
_MODELS = (
    (r"mistral|mixtral|ministral|magistral|devstral|codestral|pixtral|voxtral", MISTRAL),
    (r"claude", ANTHROPIC),
    (r"gemini", GEMINI),
    (r"(^|/)(gpt-(?!oss)|chatgpt-|o\d)", OPENAI),
)


def profile_for(base_url: str | None, model: str) -> Profile:
    """The profile for a model at a base.

    The first rule that applies: a model's family, of those whose rules travel with the model (Mistral, Claude, Gemini), by its name;
    the provider's own host; an OpenAI model's name (`gpt-…`, but not `gpt-oss`, `chatgpt-…`, `o1` and so on) at OpenRouter and the like;
    otherwise `COMPATIBLE`. No base is OpenAI's own.
    """
    named = next((profile for pattern, profile in _MODELS if re.search(pattern, model.lower())), None)
    if named is not None and named is not OPENAI:
        return named
    if base_url is None:
        return OPENAI
    host = _host(base_url)
    return next((profile for pattern, profile in _HOSTS if re.fullmatch(pattern, host)), named or COMPATIBLE)


def is_publisher(base_url: str | None) -> bool:
    """Whether a provider answers there with models of its own, and keeps text apart from their control tokens itself."""
    own = [pattern for pattern, profile in _HOSTS if profile is not DEEPSEEK]  # nothing is known of how it treats them
    return base_url is None or any(re.fullmatch(pattern, _host(base_url)) for pattern in own)


def _host(base_url: str) -> str:
    return (urlsplit(base_url).hostname or "").lower()
