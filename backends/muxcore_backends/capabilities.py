"""What a model or its server can and cannot take: named, guessed, and set in the config.

`capabilities = ["needs_reasoning", "-strict_alternation"]` on a `[[models]]` or
`[[providers]]` entry sets one and unsets another. The rest is guessed from the host, the port,
the provider's name and the model's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from attrs import frozen

from muxcore.core.records import Endpoint

NEEDS_REASONING = "needs_reasoning"
REFUSES_REASONING = "refuses_reasoning"
STRICT_ALTERNATION = "strict_alternation"
SYSTEM_FIRST = "system_first"
USER_NOT_AFTER_TOOL = "user_not_after_tool"
USER_LAST = "user_last"
NINE_CHARACTER_IDS = "nine_character_ids"
SINGLE_CALLS = "single_calls"
PLAIN_CONTENT = "plain_content"
KNOWN_MEMBERS = "known_members"
DEVELOPER_ROLE = "developer_role"
SIGNED_CALLS = "signed_calls"
USAGE_UNASKED = "usage_unasked"
CUTS_PROMPTS = "cuts_prompts"
STREAMS_WHOLE = "streams_whole"
ADAPTIVE_THINKING = "adaptive_thinking"
TAKES_SAMPLING = "takes_sampling"

OPENAI_COMPATIBLE: Mapping[str, str] = {
    NEEDS_REASONING: "every answer in the history must come with its reasoning",
    REFUSES_REASONING: "no reasoning in the history, even if the model reasons",
    STRICT_ALTERNATION: "a chat template wants user and assistant in turns",
    SYSTEM_FIRST: "the system speaks at the beginning only",
    USER_NOT_AFTER_TOOL: "an answer must stand between a tool's result and the user",
    USER_LAST: "the user or a tool speaks last, never the model",
    NINE_CHARACTER_IDS: "ids of calls are nine letters and digits",
    SINGLE_CALLS: "an answer in the history has one call, never several in parallel",
    PLAIN_CONTENT: "content is a text, not a list of text parts",
    KNOWN_MEMBERS: "members that OpenAI's API does not know are refused",
    DEVELOPER_ROLE: "the role `developer` is known",
    SIGNED_CALLS: "calls carry a signature in `extra_content`, as Google's do",
    USAGE_UNASKED: "a stream reports its usage unasked, and refuses `stream_options`",
    CUTS_PROMPTS: "the front of a prompt that is too long is dropped in silence",
    STREAMS_WHOLE: "asked to stream whole answers too: only a stream stops when its caller leaves",
}
MISTRALS: Mapping[str, str] = {
    REFUSES_REASONING: OPENAI_COMPATIBLE[REFUSES_REASONING],
}
RESPONSES: Mapping[str, str] = {
    TAKES_SAMPLING: "temperature and top_p are known, as until GPT-4",
}
ANTHROPICS: Mapping[str, str] = {
    ADAPTIVE_THINKING: "the model decides how much to think, by effort",
    TAKES_SAMPLING: "temperature, top_p and top_k are known, as until Claude 4.6",
}


@frozen
class Hint:
    """The capabilities of endpoints whose host, provider and model match."""

    capabilities: frozenset[str]
    host: str = ""
    """The end of a host name, label by label. A host on a private network matches "private",
    and the number of its port."""
    provider: str = ""
    model: str = ""


def _hint(*names: str, host: str = "", provider: str = "", model: str = "") -> Hint:
    return Hint(frozenset(names), host, provider, model)


_OPENAIS = (KNOWN_MEMBERS, REFUSES_REASONING, DEVELOPER_ROLE)
_CLOSED = (KNOWN_MEMBERS, REFUSES_REASONING)
_OF_MISTRAL = (NINE_CHARACTER_IDS, USER_NOT_AFTER_TOOL, USER_LAST)
_TEMPLATE = (STRICT_ALTERNATION, SYSTEM_FIRST, PLAIN_CONTENT, NINE_CHARACTER_IDS)
"""What a chat template may demand. The name that a server gives its model says nothing of the
template, and every one of llama.cpp's 71 takes ids of nine characters."""
_MISTRAL_MODELS = r"[sx]tral"
"""All of their names end so: Mistral, Mixtral, Codestral, Voxtral, and what comes next."""
_LLAMA_3 = r"llama[-_]?3"
_TEMPLATED = r"llama\.?cpp|vllm|lm-?studio|sglang|ollama"

HINTS: tuple[Hint, ...] = (
    _hint(*_OPENAIS, host="openai.com"),
    _hint(*_OPENAIS, host="openai.azure.com"),
    _hint(*_CLOSED, host="groq.com"),
    _hint(*_CLOSED, host="cerebras.ai"),
    _hint(*_CLOSED, SIGNED_CALLS, host="generativelanguage.googleapis.com"),
    _hint(*_CLOSED, *_OF_MISTRAL, SYSTEM_FIRST, USAGE_UNASKED, host="mistral.ai"),
    _hint(*_OF_MISTRAL, host="openrouter.ai", model=_MISTRAL_MODELS),
    _hint(NEEDS_REASONING, PLAIN_CONTENT, host="deepseek.com"),
    _hint(NEEDS_REASONING, host="moonshot.ai"),
    _hint(NEEDS_REASONING, host="moonshot.cn"),
    _hint(NEEDS_REASONING, host="kimi.com"),
    _hint(NEEDS_REASONING, model=r"deepseek-(?:reasoner|v[3-9]|r1)|kimi-k|kimi-for"),
    _hint(*_TEMPLATE, host="private"),
    _hint(*_TEMPLATE, provider=_TEMPLATED),
    _hint(USER_NOT_AFTER_TOOL, host="private", model=_MISTRAL_MODELS),
    _hint(USER_NOT_AFTER_TOOL, provider=_TEMPLATED, model=_MISTRAL_MODELS),
    _hint(SINGLE_CALLS, host="private", model=_LLAMA_3),
    _hint(SINGLE_CALLS, provider=_TEMPLATED, model=_LLAMA_3),
    _hint(CUTS_PROMPTS, host="11434"),
    _hint(CUTS_PROMPTS, provider="ollama"),
    _hint(STREAMS_WHOLE, provider=r"llama\.?cpp"),
)


@lru_cache(maxsize=256)
def of(endpoint: Endpoint) -> frozenset[str]:
    """Return the capabilities of an OpenAI-compatible endpoint, set and guessed."""
    where = _where(endpoint.wire.api_base)
    found: set[str] = set()
    for hint in HINTS:
        if (
            (not hint.host or hint.host in where)
            and (not hint.provider or _matches(hint.provider, endpoint.provider))
            and (not hint.model or _matches(hint.model, endpoint.model))
        ):
            found |= hint.capabilities
    # A hosted API may refuse what the same model needs elsewhere.
    if REFUSES_REASONING in found:
        found.discard(NEEDS_REASONING)
    return settled(found, endpoint.wire.capabilities)


def of_claude(endpoint: Endpoint) -> frozenset[str]:
    """Return the capabilities of an Anthropic model, guessed from the version in its name."""
    version = claude_version(endpoint.model)
    found = set()
    # A name without a version belongs to a new model.
    if "claude" in endpoint.model.lower() and not UNKNOWN < version < ADAPTIVE_SINCE:
        found.add(ADAPTIVE_THINKING)
    if UNKNOWN < version < FIXED_SINCE:
        found.add(TAKES_SAMPLING)
    return settled(found, endpoint.wire.capabilities)


_OPENAIS_HOSTS = frozenset({"openai.com", "openai.azure.com"})
_GPT_UNTIL_4 = r"gpt-(?:3|4)"


def of_responses(endpoint: Endpoint) -> frozenset[str]:
    """Return the capabilities of a model behind the Responses API."""
    is_openais = not _OPENAIS_HOSTS.isdisjoint(_where(endpoint.wire.api_base))
    takes = not is_openais or _matches(_GPT_UNTIL_4, endpoint.model)
    return settled({TAKES_SAMPLING} if takes else (), endpoint.wire.capabilities)


UNKNOWN = (0, 0)
ADAPTIVE_SINCE = (4, 6)
FIXED_SINCE = (4, 7)
CLAUDE = re.compile(r"claude(?:-[a-z]+)*-(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")


def claude_version(model: str) -> tuple[int, int]:
    """Read "claude-sonnet-4-5-20250929" as (4, 5); (0, 0) if it has no version."""
    match = CLAUDE.search(model.lower())
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def settled(guessed: Iterable[str], said: Iterable[str]) -> frozenset[str]:
    """Apply what the config sets and unsets to what is guessed."""
    unset = {name[1:] for name in said if name.startswith("-")}
    stated = {name for name in said if not name.startswith("-")}
    return frozenset((set(guessed) - unset) | stated)


def _matches(pattern: str, name: str) -> bool:
    return re.search(pattern, name.lower()) is not None


def _where(api_base: str) -> frozenset[str]:
    """Return the names that match a host in `Hint.host`."""
    parts = urlsplit(api_base)
    host = parts.hostname or ""
    if not _is_private(host):
        labels = host.split(".")
        return frozenset(".".join(labels[start:]) for start in range(len(labels)))
    return frozenset({"private", str(parts.port)})


def _is_private(host: str) -> bool:
    """Whether the server is on a private network: then it likely has a chat template."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal"))
