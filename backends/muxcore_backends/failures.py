"""What an answer that is no reply means: whose fault it is, and what is to be done.

By rule: the status says what kind of failure it is, and the server's own words correct it
where a provider is known to use a status for something else. Rules look at messages, codes
and types alone, never at the rest of a body, which may quote what the user wrote.
"""

from __future__ import annotations

import itertools
import re
from datetime import datetime
from typing import TypeAlias

from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.plugins.backend import BadReplyError, Failure, HttpResponse
from muxcore_backends import hints
from muxcore_backends.complaints import LARGEST_WINDOW, Complaint, clean, read
from muxcore_backends.shapes import FailedAnswerError

NUMBER = r"(?P<window>[0-9][0-9,]{0,15})"

Wordings: TypeAlias = dict[str, tuple[str, ...]]
"""Patterns of lower-case words, by who says them."""


class Words:
    """A pattern, compiled when it is first needed.

    To compile all of these on import would take a tenth of the time of a small command.
    """

    __slots__ = ("_compiled", "_pattern")

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._compiled: re.Pattern[str] | None = None

    def search(self, text: str) -> re.Match[str] | None:
        if self._compiled is None:
            self._compiled = re.compile(self._pattern)
        return self._compiled.search(text)


def _any_of(wordings: Wordings) -> Words:
    return Words("|".join(itertools.chain(*wordings.values())))


TOO_LONG_WORDS: Wordings = {
    "OpenAI, vLLM, DeepSeek, OpenRouter, Fireworks": (
        r"maximum context (?:length|size|window)(?: of)?(?: is|:)? ?{n}",
        r"context[_ ](?:length|size|window)(?:[_ ]has been)?[_ ]exceeded",
        r"input tokens exceed the configured limit of {n}",
    ),
    "Mistral": (r"with {n} maximum context length",),
    "vLLM, xAI": (r"maximum (?:model|prompt|input) length(?: of| is|:) ?{n}",),
    "llama.cpp": (
        r"exceeds? the available context size(?: \({n} tokens\))?",
        r"exceed_context_size_error",
    ),
    "LM Studio": (
        r"context length of only {n}",
        r"not enough context (?:length|size|window)|context the overflows",
    ),
    "SGLang": (r"longer than the model's context length \({n}",),
    "Together, LM Studio": (
        (
            r"(?:greater|longer|larger|less|more) than (?:or equal to )?"
            r"(?:the )?(?:model's )?"
            r"(?:maximum |max )?context (?:length|size|window)"
        ),
    ),
    "OpenAI, Ollama, llama-cpp-python, MiniMax": (
        (
            r"exceed(?:s|ed|ing)? (?:(?:the|your|this|model's|model|max|maximum|allowed) )*"
            r"context (?:length|size|window|limit)(?: of {n})?"
        ),
        r"context (?:length|size|window) exceeds (?:the )?limit",
    ),
    "Anthropic, Bedrock, Fireworks, Ollama": (
        r"(?:prompt|input) (?:is )?too long(?:: [0-9]{1,15} tokens > {n} maximum)?",
        r"exceeds? context limit: [0-9+ ]{1,40}> ?{n}",
    ),
    "Zhipu": (r"prompt exceeds (?:the )?(?:max(?:imum)?|length limit)",),
    "Groq": (r"reduce the length of (?:the|your) (?:messages|prompt|input)",),
    "Cerebras": (r"current length is [0-9]{1,15} while limit is {n}",),
    "Google": (
        r"token count.{1,60}exceeds the maximum number of tokens(?: allowed)?(?: \({n})?",
    ),
    "GitHub": (
        r"token count.{1,60}exceeds the limit of {n}",
        r"request body too large for .{1,80} model\. max size: {n} tokens",
        r"tokens_limit_reached",
    ),
    "Moonshot": (r"exceeded model token limit(?:: {n})?",),
    "watsonx": (r"input tokens [0-9]{1,15} cannot exceed the total tokens limit {n}",),
    "Cohere": (r"too many tokens: .{0,200}?(?:cannot|must not) exceed {n}",),
    "DashScope": (r"range of input length should be \[[0-9]{1,9}, ?{n}\]",),
    "TGI": (
        r"inputs`? (?:tokens \+ `?max_new_tokens`? )?must (?:be <=|have less than) {n}",
    ),
}
"""How servers say that a prompt is too long for this model; {n} is its window.

In no other case may any of it match: "context deadline exceeded" is Go's timeout, "string
too long" and "maximum length 64" are of a field, "too many tokens, please wait" of a rate.
"""

TOO_LONG = tuple(
    Words(pattern.replace("{n}", NUMBER))
    for pattern in itertools.chain(*TOO_LONG_WORDS.values())
)
ANY_TOO_LONG = Words(
    "|".join(itertools.chain(*TOO_LONG_WORDS.values())).replace("{n}", "[0-9][0-9,]{0,15}")
)
"""All of them at once: one search where nearly every failure took one for each."""

LIMIT_AND_REQUESTED = re.compile(
    r"limit:? (?P<limit>[0-9][0-9,]{0,15})\b.{0,80}?"
    r"\brequested:? (?P<requested>[0-9][0-9,]{0,15})"
)
LARGER_THAN_LIMIT = re.compile(r"request too large for")
"""OpenAI and Groq, for a request that no minute's allowance would hold."""

CAPACITY = re.compile(r"capacity exceeded|tier_capacity")
"""Mistral, for a busy model. Its `type` may speak of quotas, but it heals in seconds."""

QUOTA = _any_of(
    {
        "OpenAI, DeepSeek, Zhipu": (
            r"insufficient[_ ](?:quota|balance|credit|fund)",
            r"billing[_ ](?:hard[_ ]|soft[_ ])?limit|billing_not_active",
        ),
        "Google, xAI, Perplexity": (
            (
                r"(?:insufficient|out of|not enough|any|no|low|used(?: up)?(?: all)?"
                r"(?: of)?) (?:(?:your|the|available|remaining|prepaid) )*credits?\b"
            ),
            (
                r"credits?[_ ](?:(?:are|is|has|have|been|was|were)[_ ])*(?:limit|balance"
                r"|exhausted|depleted|exceeded|reached|too low|used up|expired)"
            ),
        ),
        "Anthropic, Google": (r"spend(?:ing)?[_ ](?:limit|cap)",),
        "Moonshot": (r"account (?:is )?suspended",),
        "LiteLLM": (r"budget has been exceeded|budget_exceeded",),
        "coding plans": (r"usage[_ ]limit|monthly|per month|weekly (?:limit|quota|usage)",),
    }
)
QUOTA_WORDS = re.compile(r"exceeded_current_quota|exceeded your current quota")
"""OpenAI's and Moonshot's words for a spent quota; Google's for any limit, minutes too."""
GOOGLE_LIMIT = "resource_exhausted"
GOOGLE_DAY = re.compile(r"perday")

UNPAID = _any_of(
    {
        "Anthropic": (r"credit balance", r"reached your specified api usage limits"),
        "OpenAI": (
            r"insufficient[_ ](?:quota|balance|credit|fund)",
            r"billing[_ ](?:hard[_ ])?limit|billing_not_active",
        ),
        "LiteLLM": (r"budget has been exceeded|budget_exceeded",),
    }
)
"""A 400 that is the account's, not the request's."""

FILTERED = _any_of(
    {
        "Azure, OpenAI": (
            r"content[_ -]?filter|content[_ ](?:management[_ ])?polic|responsibleaipolicy",
            r"moderation_blocked|rejected .{0,40}safety system",
        ),
        "OpenRouter": (
            r"requires moderation",
            r"(?:input|prompt|content|request|message)s? (?:was|were|has been|is) flagged",
        ),
        "Google": (r"prohibited_content",),
        "DashScope": (r"data_inspection_failed",),
    }
)

TEMPLATE = _any_of(
    {
        "llama.cpp, vLLM": (r"jinja|minja|chat[ _-]?template(?!_kwargs)",),
        "llama.cpp, of what its models cannot take": (
            r"(?:image|audio) input is not supported",
            r"failed to parse tool call arguments",
        ),
        "the templates themselves": (
            r"roles? must alternate|must alternate between",
            r"only user(?:,| and) assistant|system role (?:is )?not supported",
            r"after the optional system message|single tool-calls at once",
            r"alphanumeric strings with length 9",
        ),
    }
)
ANY_TEMPLATE = re.compile(r"\btemplates?\b|raise_exception")
"""Enough where the status says that the server broke; a 400 may be about anything."""

OUT_OF_MEMORY = _any_of(
    {
        "Ollama": (r"more system memory",),
        "CUDA, PyTorch": (r"out of memory|outofmemory|cudamalloc failed",),
        "llama.cpp": (
            r"(?:failed|unable) to allocate|(?:not enough|insufficient) (?:\w+ )?memory",
        ),
    }
)

NO_SUCH_MODEL = _any_of(
    {
        "Mistral": (r"invalid_model\b|\binvalid model(?::| name| id)",),
        "OpenRouter": (r"is not a valid model",),
        "DeepSeek": (r"model not exist",),
        "OpenAI, vLLM": (
            r"model_not_found|unknown model\b|no such model",
            r"\bmodel [`'\"][^`'\"]{1,200}[`'\"] (?:does not exist|(?:was |is )?not found)",
        ),
    }
)
"""With status 400: the config is wrong, not the call, and another model may serve it."""

OLLAMA_NO_MODEL = re.compile(
    # Nothing but what a model's name is made of: people will paste this into a shell.
    r"^model ['\"]?(?P<name>[A-Za-z0-9][\w./:@-]{0,150}?)['\"]? (?:was )?not found",
    re.ASCII,
)

KEY_REFUSED = _any_of(
    {
        "Google": (
            r"api[_ ]key (?:is )?(?:not valid|invalid|expired)|api_key_(?:invalid|expired)",
            r"location is not supported",
        ),
        "xAI, OpenAI": (r"incorrect api key|invalid[_ ]api[_ ]key|unsupported_country",),
    }
)
"""With status 400: as in `NO_SUCH_MODEL`."""

STATUS_NAMES: tuple[tuple[str, int], ...] = (
    # The surest first: OpenAI's `type` may be "invalid_request_error" whatever the `code`.
    ("context_length_exceeded", 400),
    ("content_filter", 400),
    ("invalid_api_key", 401),
    ("insufficient_quota", 429),
    ("model_not_found", 404),
    ("rate_limit_exceeded", 429),
    ("rate_limited", 429),
    ("rate_limit_error", 429),
    ("too_many_requests", 429),
    ("overloaded_error", 529),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
    ("timeout_error", 504),
    ("api_error", 500),
    ("server_error", 500),
    ("unavailable_error", 503),
    ("resource_exhausted", 429),
    ("unauthenticated", 401),
    ("permission_denied", 403),
    ("not_found", 404),
    ("invalid_argument", 400),
    ("failed_precondition", 400),
    ("badrequesterror", 400),
    ("notfounderror", 404),
    ("invalid_request_error", 400),
)
"""The statuses that OpenAI, Anthropic, Google, llama.cpp and vLLM pair these names with."""
RATE_WORDS = re.compile(r"rate.?limit|too many requests")

HOST = re.compile(
    r"https?://(?:[^/?#\s]{0,200}@)?(?P<host>[^/?#@\s]{1,200})", re.IGNORECASE
)

REQUEST_STATUSES = frozenset({400, 413, 422})
KINDS: dict[int, Fault] = {
    401: Fault.AUTH,
    403: Fault.AUTH,
    404: Fault.NOT_FOUND,
    # Timeouts, conflicts, locks, an upstream that failed, Groq's full capacity.
    **dict.fromkeys((408, 409, 423, 424, 425, 498, 499), Fault.TRANSIENT),
}


def classify(answer: HttpResponse, now: datetime | None, otherwise: str = "") -> Failure:
    """Say what `answer`, which is no reply, means. Never raises, whatever the bytes.

    Without `now`, a hint that names a moment is passed over. `otherwise` is the message when
    the server gives none.
    """
    complaint = read(answer.body)
    if 300 <= answer.status < 400:  # noqa: PLR2004
        return Failure(Fault.TRANSIENT, message=_redirected(answer))
    said = complaint.message or otherwise
    said = said or f"HTTP {answer.status} without a word of explanation"
    if not 200 <= answer.status < 300:  # noqa: PLR2004
        return _classified(answer, complaint, answer.status, said, now)
    if complaint.is_html:
        said = f"a web page came instead of an answer (from a proxy?): {complaint.message}"
        return Failure(Fault.TRANSIENT, message=clean(said))
    return _classified(answer, complaint, _inner_status(complaint), said, now)


def _inner_status(complaint: Complaint) -> int:
    """Return the status that the error in a body would have had; 500 if that is unknown."""
    if complaint.status is not None:
        return complaint.status
    for name, status in STATUS_NAMES:
        if name in complaint.names:
            return status
    return 429 if RATE_WORDS.search(complaint.text) else 500


def _classified(
    answer: HttpResponse, complaint: Complaint, status: int, said: str, now: datetime | None
) -> Failure:
    text = complaint.text
    if status in {429, 413}:
        too_large, limit = _larger_than_limit(text)
        if too_large:
            return Failure(Refusal.TOO_LONG, None, clean(said), limit)
    if status not in {401, 402, 404, 408, 429}:
        too_long, window = _too_long(complaint)
        if too_long:
            return Failure(Refusal.TOO_LONG, None, clean(said), window)
    kind = _kind(answer, status, text, now)
    if isinstance(kind, Refusal):
        return Failure(kind, None, clean(said))
    if kind is Fault.NOT_FOUND:
        said = _with_pull(said)
    return Failure(kind, hints.hint(answer.headers, answer.body, now), clean(said))


def _kind(answer: HttpResponse, status: int, text: str, now: datetime | None) -> Kind:
    if status == 429:  # noqa: PLR2004
        return Limit.QUOTA if _quota_is_spent(text) else Limit.RATE
    if status == 402:  # noqa: PLR2004
        asked = hints.retry_after(answer.headers, now)
        return Fault.UNPAID if asked is None else Limit.BUDGET
    if status == 403 and FILTERED.search(text):  # noqa: PLR2004
        return Refusal.FILTERED
    if status in REQUEST_STATUSES:
        return _of_a_bad_request(text)
    if not 400 <= status < 500:  # noqa: PLR2004
        return _of_a_server_error(answer, text)
    # What is left is of a chat endpoint that knows no POST, no JSON: its config is wrong.
    return KINDS.get(status, Fault.PERSISTENT)


def _of_a_bad_request(text: str) -> Kind:
    if UNPAID.search(text):
        return Fault.UNPAID
    if FILTERED.search(text):
        return Refusal.FILTERED
    if TEMPLATE.search(text):
        return Refusal.TEMPLATE
    if KEY_REFUSED.search(text):
        return Fault.AUTH
    if NO_SUCH_MODEL.search(text):
        return Fault.NOT_FOUND
    return Refusal.REQUEST


def _of_a_server_error(answer: HttpResponse, text: str) -> Kind:
    if OUT_OF_MEMORY.search(text):
        return Fault.PERSISTENT
    if TEMPLATE.search(text) or ANY_TEMPLATE.search(text):
        return Refusal.TEMPLATE
    if answer.headers.get("x-should-retry", "").strip().lower() == "false":
        return Fault.PERSISTENT
    return Fault.TRANSIENT


def _quota_is_spent(text: str) -> bool:
    if CAPACITY.search(text):
        return False
    if GOOGLE_LIMIT in text:
        return GOOGLE_DAY.search(text) is not None or QUOTA.search(text) is not None
    return QUOTA.search(text) is not None or QUOTA_WORDS.search(text) is not None


def _too_long(complaint: Complaint) -> tuple[bool, int | None]:
    """Whether the prompt is too long for this model, and the window if it is named."""
    text = complaint.text
    if not ANY_TOO_LONG.search(text):
        return False, complaint.window
    matches = [match for match in (pattern.search(text) for pattern in TOO_LONG) if match]
    named = (match.groupdict().get("window") for match in matches)
    window = complaint.window or next(filter(None, map(_size, named)), None)
    return bool(matches), window


def _larger_than_limit(text: str) -> tuple[bool, int | None]:
    """Whether the request alone is more than a limit's whole allowance, and that limit."""
    match = LIMIT_AND_REQUESTED.search(text)
    if match is None:
        return LARGER_THAN_LIMIT.search(text) is not None, None
    limit, requested = _size(match["limit"]), _size(match["requested"])
    if limit is None or requested is None or requested <= limit:
        return False, None
    return True, limit


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    size = int(text.replace(",", ""))
    return size if 0 < size <= LARGEST_WINDOW else None


def _with_pull(said: str) -> str:
    """Add to Ollama's words the command that helps."""
    match = OLLAMA_NO_MODEL.match(said)
    return said if match is None else f"{said} (`ollama pull {match['name']}`)"


def _redirected(answer: HttpResponse) -> str:
    # Neither its path nor its query: a login page's may hold what is nobody's business.
    match = HOST.match(answer.headers.get("location", ""))
    where = f" to {match['host']}" if match else ""
    return clean(f"HTTP {answer.status}: a redirect{where}, which is never followed")


def bad_reply(answer: HttpResponse, otherwise: str) -> BadReplyError:
    """Make the error for an answer that looked well: its own words, or these."""
    failure = classify(answer, None, otherwise)
    return BadReplyError(failure.message, failure)


def failed_answer(error: FailedAnswerError) -> BadReplyError:
    """Make the error for an answer whose finish reason names a failure."""
    text = clean(f"the answer ended with the finish reason {str(error)!r}")
    return BadReplyError(text, Failure(Fault.TRANSIENT, message=text))
