"""Tables of the words in which servers say why they refuse: patterns, in lower case.

Each table states what it saves or teaches. None decides whether a call succeeds: another
model is asked after a refusal of any wording.
"""

from __future__ import annotations

import re
from datetime import timedelta


class Words:
    """Patterns that are compiled on first use.

    Compiling all of them on import takes a tenth of the time of a small command.
    """

    __slots__ = ("_compiled", "_pattern")

    def __init__(self, *patterns: str) -> None:
        self._pattern = "|".join(patterns)
        self._compiled: re.Pattern[str] | None = None

    def search(self, text: str) -> re.Match[str] | None:
        if self._compiled is None:
            self._compiled = re.compile(self._pattern)
        return self._compiled.search(text)


CONTEXT = r"context[_ ](?:length|size|window|limit)"
EXCEEDS = r"(?:(?<!deadline )exceed(?:s|ed|ing)?|must be (?:<=|less than))"
TOO_LONG = Words(
    # Of tokens, but not those of the answer: "max_tokens exceeds" is about a parameter.
    rf"(?<!output )(?<!completion )tokens?\b.{{1,60}}{EXCEEDS}",
    r"\b(?:prompt|input)\b[^.]{0,20}\btokens?\b.{0,60}(?:too long|only)",
    rf"\b(?:prompt|input) (?:token )?length\b.{{0,30}}(?:too long|exceeds)|{CONTEXT} is [0-9]",
    r"(?:max(?:imum)?|longer|larger|greater|more|less|available|only|exceed\w*|enough|too long)"
    rf"\b.{{0,40}}\b{CONTEXT}",
    rf"{CONTEXT}\w*.{{0,20}}(?:exceed|only|overflow)|exceed_{CONTEXT}",
    r"max(?:imum)? (?:model |prompt |input )(?:length|context)|model max context",
    r"(?:prompt|input) (?:is )?too long|prompt exceeds",
    r"reduce the length of (?:the|your) (?:messages|prompt|input)",
    r"inputs`? must have less than|range of input length|length is [0-9]+ while limit",
    r"(?:tokens?_|token )limit(?:_reached|:)|too large for .{1,80} model\. max size",
    r"context the overflows",
)
"""Too long for this model: larger ones alone are asked, its window is learnt, and it is not
counted against it.

None of it may match otherwise: "context deadline exceeded" is Go's timeout, "string too
long" and "maximum length 64" are of a field, "too many tokens, please wait" of a rate."""

OF_ANSWER = re.compile(r"max_(?:[a-z]{1,20}_)?tokens|maxtokens|maximum tokens")
OF_PROMPT = re.compile(r"prompt|input|messages")
"""A limit of the answer's length is no window: to learn it would keep a large model from all
longer prompts. It is one if the prompt is not spoken of."""

# "1.5M", "1 million" and "128 k" are no numbers of tokens.
NUMBER = (
    r"(?P<window>[0-9]{1,3}(?:[., '_][0-9]{3})+|[0-9]{1,16})"
    r"\b(?![.,'_][0-9]| ?(?:k|m|thousand|million)\b)"
)
WINDOWS = (
    Words(rf"\[[0-9]{{1,9}}, ?{NUMBER}\]"),
    Words(rf"> ?{NUMBER}"),
    Words(rf"{NUMBER} max(?:imum)?\b"),
    Words(
        rf"(?:(?:max[a-z_]*(?: (?!by |output )[a-z]+){{0,4}}|{CONTEXT}(?: limit)?)"
        rf"(?: is| of| only|:| ?\()*?"
        rf"|(?:limit|max size|exceed|less than|<=|up to)(?: is| of|:)?) ?{NUMBER}"
    ),
)
"""Where such a message names the window: the end of a range, after ">", before "maximum", or
after the name of a limit."""

LIMIT_AND_REQUESTED = re.compile(
    r"limit:? (?P<limit>[0-9][0-9,]{0,15})\b.{0,80}?"
    r"\brequested:? (?P<requested>[0-9][0-9,]{0,15})"
)
LARGER_THAN_LIMIT = re.compile(r"request too large for")
"""A request larger than a whole minute's allowance counts as too long: no wait would help."""

QUOTA = Words(
    r"insufficient[_ ](?:quota|balance|credit|fund)|overdue|arrear",
    r"(?:balance|funds?) (?:(?:is|are) )?(?:insufficient|too low)",
    r"billing[_ ](?:hard[_ ]|soft[_ ])?limit|billing_not_active|budget[_ ](?:has been )?exceeded",
    (
        r"(?:insufficient|out of|not enough|any|no|low|used(?: up)?(?: all)?(?: of)?)"
        r" (?:(?:your|the|available|remaining|prepaid) )*credits?\b"
    ),
    (
        r"credits?[_ ](?:(?:are|is|has|have|been|was|were)[_ ])*(?:limit|balance|exhausted"
        r"|depleted|exceeded|reached|too low|used up|expired)"
    ),
    r"spend(?:ing)?[_ ](?:limit|cap)|account (?:is )?suspended",
    r"usage[_ ](?:limit|quota)|monthly|(?:per|/) ?month|weekly (?:limit|quota|usage)",
    # Zhipu's codes for an account in arrears and a plan that is spent; what its words say.
    r"(?m:^1113$|^1308$)|余额不足|欠费|额度|限额|使用上限",
)
"""A quota, not a rate: the model is disabled for longer. With another 4xx or an error without a
status, the account cannot pay."""
QUOTA_WORDS = re.compile(r"exceeded_current_quota|exceeded your current quota")
"""OpenAI's and Moonshot's words for a spent quota; Google's for any limit, minutes too."""
GOOGLE_LIMIT = "resource_exhausted"
DAY = re.compile(r"(?:per[-_ ]?|/ ?)day|daily|\b[rt]pd\b")
"""A day's allowance is spent: a quota, unless the server names a shorter time."""
QUOTA_LENGTH = timedelta(minutes=15)

CAPACITY = re.compile(r"capacity exceeded|tier_capacity|concurren|并发")
"""A busy model (Mistral), or too many calls at a time: a rate, although it speaks of quotas."""

FILTERED = Words(
    r"content[_ -]?filter|content[_ ](?:management[_ ])?polic|responsibleaipolicy",
    r"moderation_blocked|rejected .{0,40}safety system|requires moderation",
    r"(?:input|prompt|content|request|message)s? (?:was|were|has been|is) flagged",
    r"prohibited_content|data_inspection_failed",
)
"""A filtered request is not counted against the model; with 403, the key is not blamed."""

SERVER_REFUSED = Words(
    r"jinja|minja|\btemplates?\b|chat[_ -]?template|raise_exception|roles must alternate",
    r"must alternate between user and|only user(?:,| and) assistant|after the optional system",
    r"not support|unsupported|only supports|failed to parse|alphanumeric strings with length",
    # A part of the template itself.
    r"\{%",
)
"""With a 5xx: the server works and refused this request, so the model is not disabled. What it
does not support now, it will not support in 15 seconds."""

OUT_OF_MEMORY = Words(
    r"more system memory|out of memory|outofmemory|cudamalloc failed",
    r"(?:failed|unable) to allocate|(?:not enough|insufficient) (?:\w+ )?memory",
)
"""With a 5xx: it persists, so the model is disabled for longer each time."""

_NAME = r"[`'\"]?[\w./:@-]{1,200}[`'\"]?"
NO_SUCH_MODEL = Words(
    r"model_(?:not_(?:found|supported|available)|decommissioned|deprecated|retired)",
    r"(?:invalid|unknown)_model\b|\binvalid model(?::| name| id)|unknown model\b|no such model",
    r"is not a valid model|model not exist|requested model is not supported",
    rf"\bmodel (?:{_NAME} )?(?:does not exist|(?:was |is )?not found)",
    rf"\bmodel {_NAME} (?:has been|is|was) (?:decommission|deprecat|retired|discontinued"
    r"|shut ?down|no longer (?:supported|available))",
)
"""With status 400: the config is wrong, so the model is disabled for longer each time."""

NO_ENDPOINT = re.compile("no endpoints found that")
"""With status 404: OpenRouter knows the model, and no server of it takes this request (an image,
a tool). Another request it serves, so the model is not disabled."""

KEY_REFUSED = Words(
    r"api[_ ]key (?:is )?(?:not valid|invalid|expired)|api_key_(?:invalid|expired)",
    r"(?:incorrect|invalid)[_ ](?:x-)?api[_ -]key|authentication_error|location is not supported|unsupported_country",
    # LiteLLM's proxy without a database, for any key but its own.
    r"no_db_connection",
)
"""With status 400: the advice names the key, and the model is disabled for longer each time."""

KEY = re.compile(r"\bkeys?\b|token|credential|authori[sz]|authentic")
"""With a 403 that is no JSON: the provider refuses the key after all."""

OLLAMA_NO_MODEL = re.compile(
    # Nothing but what a model's name is made of: people will paste this into a shell.
    r"^model ['\"]?(?P<name>[A-Za-z0-9][\w./:@-]{0,150}?)['\"]? (?:was )?not found",
    re.ASCII,
)

STATUS_NAMES = tuple(
    (Words(pattern), status)
    for pattern, status in (
        # The surest first: OpenAI's `type` may be "invalid_request_error" whatever the `code`.
        (r"context_length|content_filter", 400),
        (r"api_key|authent", 401),
        (r"insufficient_quota|rate_?limit|too_many|exhausted", 429),
        (r"billing", 402),
        (r"permission", 403),
        (r"not_?found", 404),
        (r"overloaded|timeout|unavailable|(?:api|server)_error", 500),
        (r"invalid|bad_?request|precondition|too_large", 400),
    )
)
"""The status of an error inside of a 200, by its code or type: what a 200 says of itself."""
PER_MINUTE = r"\b[rt]pm\b|per[-_ ]?minute"
OF_RATE = re.compile(PER_MINUTE)
"""Tokens by the minute are a rate, and no window."""
RATE_WORDS = re.compile(rf"rate.?limit|too many requests|{PER_MINUTE}")
