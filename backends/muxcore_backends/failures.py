"""Classify a response that is no reply: the kind of failure, the hint, the context window.

Pure, for all OpenAI-compatible dialects. The status decides; known wordings (`words`) only save
an attempt or change what is learnt. Rules match messages, codes and types only, never the rest
of a body, which may quote the user. `complaints` reads the body, `hints` the time to wait.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from muxcore import jsontext
from muxcore.chat import Json
from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.plugins.backend import BadReplyError, Failure, HttpResponse
from muxcore_backends import hints
from muxcore_backends.complaints import LARGEST_WINDOW, Complaint, clean, read
from muxcore_backends.shapes import FailedAnswerError
from muxcore_backends.words import (
    CAPACITY,
    DAY,
    FILTERED,
    GOOGLE_LIMIT,
    KEY,
    KEY_REFUSED,
    LARGER_THAN_LIMIT,
    LIMIT_AND_REQUESTED,
    NO_ENDPOINT,
    NO_SUCH_MODEL,
    OF_ANSWER,
    OF_PROMPT,
    OF_RATE,
    OLLAMA_NO_MODEL,
    OUT_OF_MEMORY,
    QUOTA,
    QUOTA_LENGTH,
    QUOTA_WORDS,
    RATE_WORDS,
    SERVER_REFUSED,
    STATUS_NAMES,
    TOO_LONG,
    WINDOWS,
)

HOST = re.compile(
    r"https?://(?:[^/?#\s]{0,200}@)?(?P<host>[^/?#@\s]{1,200})", re.IGNORECASE
)

NO_DIGIT = re.compile(r"[^0-9]")

OK = 200
REQUEST_STATUSES = frozenset({400, 413, 422})
KINDS: dict[int, Fault] = {
    401: Fault.AUTH,
    403: Fault.AUTH,
    # Timeouts, conflicts, locks, a failed upstream, Groq's full capacity. A 529 is transient too,
    # as any 5xx: the server is overloaded for all customers, no allowance of this account is
    # spent, and it recovers in seconds. A rate limit would disable the model four times as long.
    **dict.fromkeys((408, 409, 423, 424, 425, 498, 499), Fault.TRANSIENT),
}

LASTING = frozenset({Fault.AUTH, Fault.NOT_FOUND, Fault.PERSISTENT})
"""What no time heals: a length in the words is about something else."""


def classify(answer: HttpResponse, now: datetime | None, otherwise: str = "") -> Failure:
    """Classify `answer`, which is no reply. Never raises, whatever the bytes.

    Without `now`, a hint that names a moment is ignored. `otherwise` is the message if the
    server sends none.
    """
    complaint = read(answer.body)
    if 300 <= answer.status < 400:  # noqa: PLR2004
        return Failure(Fault.TRANSIENT, message=_redirected(answer))
    message = complaint.message or otherwise
    message = message or f"HTTP {answer.status} without a word of explanation"
    if not 200 <= answer.status < 300:  # noqa: PLR2004
        return _classified(answer, complaint, answer.status, message, now)
    if complaint.is_html:
        return _web_page(complaint)
    return _classified(answer, complaint, _inner_status(complaint), message, now)


def _web_page(complaint: Complaint) -> Failure:
    kind = "web page" if complaint.is_html else "plain text"
    message = f"a {kind} came instead of an answer (from a proxy?): {complaint.message}"
    return Failure(Fault.TRANSIENT, message=clean(message))


def _inner_status(complaint: Complaint) -> int:
    """Return the status of the error in a body; 500 if it is unknown."""
    if complaint.status is not None:
        return complaint.status
    names = "\n".join(complaint.names)
    for words, status in STATUS_NAMES:
        if words.search(names):
            return status
    if RATE_WORDS.search(complaint.text):
        return 429
    return 402 if QUOTA.search(complaint.text) else 500


def _classified(
    answer: HttpResponse,
    complaint: Complaint,
    status: int,
    message: str,
    now: datetime | None,
) -> Failure:
    text = complaint.text
    if status in {429, 413}:
        too_large, limit = _larger_than_limit(text)
        if too_large:
            return Failure(Refusal.TOO_LONG, None, clean(message), limit)
    if status not in {401, 402, 404, 408, 429}:
        too_long, window = _too_long(complaint)
        if too_long:
            return Failure(Refusal.TOO_LONG, None, clean(message), window)
    if status == 403 and complaint.is_foreign and not KEY.search(text):  # noqa: PLR2004
        # A firewall in front of the provider, which has not checked the key.
        return _web_page(complaint)
    hint = hints.hint(answer.headers, answer.body, now, complaint.message)
    kind = _kind(answer, status, text, now, hint)
    if kind in LASTING:
        # "If you created the deployment within the last 5 minutes" is no time to wait.
        hint = hints.hint(answer.headers, answer.body, now)
    if isinstance(kind, Refusal):
        return Failure(kind, None, clean(message))
    return Failure(kind, hint, clean(_with_pull(message, answer)))


def _kind(
    answer: HttpResponse,
    status: int,
    text: str,
    now: datetime | None,
    hint: timedelta | None,
) -> Kind:
    if status == 429:  # noqa: PLR2004
        return Limit.QUOTA if _quota_is_spent(text, hint) else Limit.RATE
    if status == 402:  # noqa: PLR2004
        asked = hints.retry_after(answer.headers, now)
        return Fault.UNPAID if asked is None else Limit.BUDGET
    if status == 403 and FILTERED.search(text):  # noqa: PLR2004
        return Refusal.FILTERED
    if status in REQUEST_STATUSES:
        return _kind_of_bad_request(text)
    if not 400 <= status < 500:  # noqa: PLR2004
        return _kind_of_server_error(answer, text)
    return _kind_of_other_status(answer, status, text)


def _kind_of_other_status(answer: HttpResponse, status: int, text: str) -> Kind:
    if status == 404:  # noqa: PLR2004
        return Refusal.REQUEST if NO_ENDPOINT.search(text) else Fault.NOT_FOUND
    if QUOTA.search(text):
        # OpenCode says it with 401; one-api, SiliconFlow and Volcengine with 403; Fireworks, 412.
        return Fault.UNPAID
    if answer.status == 403 and RATE_WORDS.search(text):  # noqa: PLR2004
        return Limit.RATE
    # Other statuses come from a wrong address: the endpoint takes no POST, or no JSON.
    return KINDS.get(status, Fault.PERSISTENT)


def _kind_of_bad_request(text: str) -> Kind:
    if QUOTA.search(text):
        return Fault.UNPAID
    if FILTERED.search(text):
        return Refusal.FILTERED
    if KEY_REFUSED.search(text):
        return Fault.AUTH
    if NO_SUCH_MODEL.search(text):
        return Fault.NOT_FOUND
    return Refusal.REQUEST


def _kind_of_server_error(answer: HttpResponse, text: str) -> Kind:
    if OUT_OF_MEMORY.search(text):
        return Fault.PERSISTENT
    if SERVER_REFUSED.search(text):
        return Refusal.TEMPLATE
    if answer.headers.get("x-should-retry", "").strip().lower() == "false":
        return Fault.PERSISTENT
    return Fault.TRANSIENT


def _quota_is_spent(text: str, hint: timedelta | None) -> bool:
    if CAPACITY.search(text):
        return False
    google = GOOGLE_LIMIT in text
    if DAY.search(text) and (google or hint is None or hint > QUOTA_LENGTH):
        return True
    spent = QUOTA.search(text) is not None
    return spent or (not google and QUOTA_WORDS.search(text) is not None)


def _too_long(complaint: Complaint) -> tuple[bool, int | None]:
    """Return whether the prompt is too long for this model, and the window if it is named."""
    text = complaint.text
    is_of_answer = OF_ANSWER.search(text) and not OF_PROMPT.search(text)
    if is_of_answer or OF_RATE.search(text) or not TOO_LONG.search(text):
        return False, complaint.window
    matches = (words.search(text) for words in WINDOWS)
    named = (_size(match["window"]) for match in matches if match)
    return True, complaint.window or next(filter(None, named), None)


def _larger_than_limit(text: str) -> tuple[bool, int | None]:
    """Return whether the request exceeds the whole allowance of a limit, and that limit."""
    match = LIMIT_AND_REQUESTED.search(text)
    if match is None:
        return LARGER_THAN_LIMIT.search(text) is not None, None
    limit, requested = _size(match["limit"]), _size(match["requested"])
    if limit is None or requested is None or requested <= limit:
        return False, None
    return True, limit


def _size(text: str) -> int | None:
    size = int(NO_DIGIT.sub("", text))
    return size if 0 < size <= LARGEST_WINDOW else None


def _with_pull(message: str, answer: HttpResponse) -> str:
    """Add `ollama pull` to Ollama's message, which llama.cpp's router sends too."""
    match = OLLAMA_NO_MODEL.match(message)
    if match is None or answer.status != 404 or "llama" in answer.headers.get("server", ""):  # noqa: PLR2004
        return message
    return f"{message} (`ollama pull {match['name']}`)"


def _redirected(answer: HttpResponse) -> str:
    # Without path and query: those of a login page may hold secrets.
    match = HOST.match(answer.headers.get("location", ""))
    where = f" to {match['host']}" if match else ""
    return clean(f"HTTP {answer.status}: a redirect{where}, which is never followed")


def object_of(answer: HttpResponse) -> Json:
    """Return the JSON object of a 200. Raise `BadReplyError` for any other body, or an error."""
    try:
        raw = jsontext.decode(answer.body)
    except (ValueError, RecursionError):
        raise bad_reply(answer, "the answer is cut off, or no JSON") from None
    if not isinstance(raw, dict) or raw.get("error") or raw.get("type") == "error":
        raise bad_reply(answer, "the answer is an error without words")
    return raw


def bad_event(data: str, otherwise: str) -> BadReplyError:
    """Make the error for an event that is no part of a reply, with its message or `otherwise`."""
    return bad_reply(HttpResponse(OK, {}, data.encode("utf-8", "replace")), otherwise)


def bad_reply(answer: HttpResponse, otherwise: str) -> BadReplyError:
    """Make the error for a 200 that is no reply, with its message or `otherwise`."""
    failure = classify(answer, None, otherwise)
    return BadReplyError(failure.message, failure)


def failed_answer(error: FailedAnswerError) -> BadReplyError:
    """Make the error for an answer whose finish reason names a failure."""
    text = clean(f"the answer ended with the finish reason {str(error)!r}")
    return BadReplyError(text, Failure(Fault.TRANSIENT, message=text))
