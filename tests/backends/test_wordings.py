"""Every known wording, in a sentence of the server that sends it."""

from __future__ import annotations

import json

import pytest

from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.plugins.backend import Failure, HttpResponse
from muxcore_backends.complaints import read
from muxcore_backends.failures import classify


def refusal(status: int, message: str, **headers: str) -> Failure:
    body = json.dumps({"error": {"message": message}}).encode()
    return classify(HttpResponse(status, headers, body), None)


@pytest.mark.parametrize(
    ("said", "window"),
    [
        ("maximum context length is 4096 tokens", 4096),
        ("maximum context size of 4096", 4096),
        ("context_length_exceeded", None),
        ("The context window has been exceeded", None),
        ("input tokens exceed the configured limit of 272000 tokens", 272_000),
        ("too large for model with 32768 maximum context length", 32_768),
        ("longer than the maximum model length of 8192", 8192),
        ("This model's maximum prompt length is 131072", 131_072),
        ("request exceeds the available context size (4096 tokens)", 4096),
        ("exceed_context_size_error", None),
        ("the model has a context length of only 4096 tokens", 4096),
        ("not enough context size for this prompt", None),
        ("the tokens to keep from the initial prompt: context the overflows", None),
        ("it is longer than the model's context length (8192 tokens)", 8192),
        ("The input is greater than the context length", None),
        ("more than or equal to the model's max context window", None),
        ("Requested tokens exceed context window of 2048", 2048),
        ("the prompt exceeded your model's maximum context limit", None),
        ("context window exceeds limit", None),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200_000),
        ("input too long", None),
        ("input length and `max_tokens` exceed context limit: 190 + 20 > 200000", 200_000),
        ("model_context_window_exceeded", None),
        ("Prompt exceeds max length", None),
        ("Prompt exceeds the length limit", None),
        ("Please reduce the length of the messages", None),
        ("Current length is 9000 while limit is 8192", 8192),
        ("The input token count (9) exceeds the maximum number of tokens allowed (8).", 8),
        ("Total token count 9 exceeds the limit of 8 tokens", 8),
        ("Request body too large for gpt-4o model. Max size: 8000 tokens.", 8000),
        ("tokens_limit_reached", None),
        ("Your request exceeded model token limit: 131072", 131_072),
        ("input tokens 9000 cannot exceed the total tokens limit 8192", 8192),
        ("too many tokens: size limit exceeded, must not exceed 4096", 4096),
        ("Range of input length should be [1, 30720]", 30_720),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096", 4096),
        ("inputs must have less than 1024 tokens", 1024),
        ("maximum context length is 1 token", 1),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 413, 500])
def test_every_wording_of_a_prompt_that_is_too_long_is_recognised(
    status: int, said: str, window: int | None
) -> None:
    failure = refusal(status, said)
    assert failure.kind is Refusal.TOO_LONG
    assert failure.window == window


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Fault.AUTH),
        (402, Fault.UNPAID),
        (404, Fault.NOT_FOUND),
        (408, Fault.TRANSIENT),
        (429, Limit.RATE),
    ],
)
def test_the_status_overrides_a_wording(status: int, kind: Kind) -> None:
    assert refusal(status, "maximum context length is 4096 tokens").kind is kind


@pytest.mark.parametrize(
    "said",
    [
        "insufficient_quota",
        "Insufficient balance",
        "billing_hard_limit",
        "Billing soft limit was met",
        "billing_not_active",
        "You are out of credits",
        "you have used up all of your available credits",
        "Your credits are exhausted",
        "credit limit",
        "spending cap",
        "spend limit",
        "Your account is suspended",
        "account suspended",
        "Budget has been exceeded",
        "budget_exceeded",
        "usage limit",
        "monthly",
        "per month",
        "weekly quota",
        "exceeded_current_quota_error",
        "You exceeded your current quota",
    ],
)
def test_every_wording_of_a_spent_quota_is_recognised(said: str) -> None:
    assert refusal(429, said).kind is Limit.QUOTA


@pytest.mark.parametrize(
    "said", ["Service tier capacity exceeded: monthly", "tier_capacity"]
)
def test_a_busy_model_is_not_a_spent_quota(said: str) -> None:
    assert refusal(429, said).kind is Limit.RATE


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("GenerateRequestsPerDayPerProject", Limit.QUOTA),
        ("GenerateRequestsPerMinutePerProject", Limit.RATE),
    ],
)
def test_the_spent_quota_of_google_is_recognised(reason: str, kind: Kind) -> None:
    error = {
        "status": "RESOURCE_EXHAUSTED",
        "message": "You exceeded your current quota",
        "details": [{"violations": [{"quotaId": reason}]}],
    }
    body = json.dumps({"error": error}).encode()
    assert classify(HttpResponse(429, {}, body), None).kind is kind


@pytest.mark.parametrize(
    "said",
    [
        "Your credit balance is too low",
        "You have reached your specified API usage limits",
        "insufficient funds",
        "insufficient_quota",
        "billing limit",
        "billing_hard_limit",
        "billing_not_active",
        "Budget has been exceeded",
        "budget_exceeded",
    ],
)
def test_every_wording_of_an_unpaid_account_is_recognised(said: str) -> None:
    assert refusal(400, said).kind is Fault.UNPAID


@pytest.mark.parametrize(
    "said",
    [
        "content_filter",
        "the content filter",
        "the content management policy",
        "content policy",
        "ResponsibleAIPolicyViolation",
        "moderation_blocked",
        "Your request was rejected as a result of our safety system",
        "this model requires moderation on",
        "Your input was flagged",
        "The messages have been, and the prompt is flagged",
        "prohibited_content",
        "data_inspection_failed",
    ],
)
@pytest.mark.parametrize("status", [400, 403])
def test_every_wording_of_a_content_filter_is_recognised(status: int, said: str) -> None:
    assert refusal(status, said).kind is Refusal.FILTERED


@pytest.mark.parametrize(
    "said",
    [
        "Jinja error",
        "minja",
        "the chat template",
        "chat_template failed",
        "image input is not supported",
        "audio input is not supported - hint: the projector is missing",
        "Failed to parse tool call arguments as JSON",
        "conversation roles must alternate user/assistant",
        "must alternate between user and assistant",
        "Only user and assistant roles are supported",
        "only user, assistant and tool roles",
        "System role not supported",
        "system role is not supported",
        "After the optional system message, roles",
        "This model only supports single tool-calls at once!",
        "Tool call IDs should be alphanumeric strings with length 9!",
    ],
)
def test_every_wording_of_a_chat_template_is_recognised(said: str) -> None:
    """With a 400 it is a refusal whatever the words; the 500 of a template is one, too."""
    assert refusal(500, said).kind is Refusal.TEMPLATE
    assert refusal(400, said).kind is Refusal.REQUEST


@pytest.mark.parametrize("said", ["the template failed", "raise_exception"])
def test_some_wordings_mean_a_template_only_with_a_500(said: str) -> None:
    assert refusal(500, said).kind is Refusal.TEMPLATE
    assert refusal(400, said).kind is Refusal.REQUEST


@pytest.mark.parametrize(
    "said",
    [
        "model requires more system memory (9 GiB) than is available",
        "CUDA error: out of memory",
        "torch.OutOfMemoryError",
        "cudaMalloc failed",
        "failed to allocate buffer",
        "unable to allocate CPU buffer",
        "not enough memory",
        "insufficient GPU memory",
    ],
)
def test_every_wording_of_a_server_without_memory_is_recognised(said: str) -> None:
    assert refusal(500, said).kind is Fault.PERSISTENT


@pytest.mark.parametrize(
    "said",
    [
        "invalid_model",
        "Invalid model: x",
        "invalid model name",
        "x is not a valid model ID",
        "Model Not Exist",
        "model_not_found",
        "unknown model",
        "no such model",
        "the model `x` does not exist",
        "model 'x' not found",
        "model 'x' was not found",
        "The model gemma2-9b-it has been decommissioned and is no longer supported.",
        "The model `x` is no longer available",
        "model_decommissioned",
        "model_not_supported",
    ],
)
def test_every_wording_of_a_missing_model_is_recognised(said: str) -> None:
    assert refusal(400, said).kind is Fault.NOT_FOUND


@pytest.mark.parametrize(
    "said",
    [
        "API key not valid",
        "api_key is expired",
        "API_KEY_INVALID",
        "api_key_expired",
        "User location is not supported for the API use",
        "Incorrect API key provided",
        "invalid x-api-key",
        "authentication_error",
        "invalid_api_key",
        "unsupported_country_region_territory",
    ],
)
def test_every_wording_of_a_refused_key_is_recognised(said: str) -> None:
    assert refusal(400, said).kind is Fault.AUTH


ERROR_NAMES: list[tuple[str, Kind]] = [
    ("context_length_exceeded", Refusal.TOO_LONG),
    ("content_filter", Refusal.FILTERED),
    ("invalid_api_key", Fault.AUTH),
    ("insufficient_quota", Limit.QUOTA),
    ("model_not_found", Fault.NOT_FOUND),
    ("rate_limit_exceeded", Limit.RATE),
    ("rate_limited", Limit.RATE),
    ("rate_limit_error", Limit.RATE),
    ("too_many_requests", Limit.RATE),
    ("overloaded_error", Fault.TRANSIENT),
    ("authentication_error", Fault.AUTH),
    ("billing_error", Fault.UNPAID),
    ("permission_error", Fault.AUTH),
    ("not_found_error", Fault.NOT_FOUND),
    ("request_too_large", Refusal.REQUEST),
    ("timeout_error", Fault.TRANSIENT),
    ("api_error", Fault.TRANSIENT),
    ("server_error", Fault.TRANSIENT),
    ("unavailable_error", Fault.TRANSIENT),
    ("RESOURCE_EXHAUSTED", Limit.RATE),
    ("UNAUTHENTICATED", Fault.AUTH),
    ("PERMISSION_DENIED", Fault.AUTH),
    ("NOT_FOUND", Fault.NOT_FOUND),
    ("INVALID_ARGUMENT", Refusal.REQUEST),
    ("FAILED_PRECONDITION", Refusal.REQUEST),
    ("BadRequestError", Refusal.REQUEST),
    ("NotFoundError", Fault.NOT_FOUND),
    ("invalid_request_error", Refusal.REQUEST),
]


@pytest.mark.parametrize(("name", "kind"), ERROR_NAMES)
def test_an_error_inside_a_200_is_classified_by_its_name(name: str, kind: Kind) -> None:
    """The name counts before the message, which alone would mean a limit or an outage."""
    limits = isinstance(kind, Limit)
    message = "try again" if limits else "said the rate limit service"
    body = json.dumps({"error": {"type": name, "message": message}}).encode()
    assert classify(HttpResponse(200, {}, body), None).kind is kind


@pytest.mark.parametrize(("name", "kind"), ERROR_NAMES)
def test_of_two_names_the_more_specific_one_counts(name: str, kind: Kind) -> None:
    """OpenAI's `type` is "invalid_request_error" for much that is not the request's fault."""
    error = {"type": "invalid_request_error", "code": name, "message": "try again"}
    body = json.dumps({"error": error}).encode()
    assert classify(HttpResponse(200, {}, body), None).kind is kind


@pytest.mark.parametrize("said", ["Too many requests", "rate limit", "ratelimited"])
def test_an_error_without_a_name_is_classified_by_its_message(said: str) -> None:
    assert refusal(200, said).kind is Limit.RATE
    assert refusal(200, "something else").kind is Fault.TRANSIENT


@pytest.mark.parametrize("status", [408, 409, 423, 424, 425, 498, 499, 500, 503, 529, 599])
def test_these_statuses_are_transient_whatever_the_message(status: int) -> None:
    assert refusal(status, "oops").kind is Fault.TRANSIENT


@pytest.mark.parametrize("status", [405, 406, 410, 415, 451])
def test_an_endpoint_without_chat_is_recognised(status: int) -> None:
    assert refusal(status, "oops").kind is Fault.PERSISTENT


@pytest.mark.parametrize("status", [300, 302, 399])
def test_every_redirect_is_recognised(status: int) -> None:
    answer = HttpResponse(status, {"location": "https://login.example/x?y"}, b"moved")
    failure = classify(answer, None)
    assert failure.kind is Fault.TRANSIENT
    expected = f"HTTP {status}: a redirect to login.example, which is never followed"
    assert failure.message == expected


@pytest.mark.parametrize("status", [200, 299])
def test_any_success_may_hold_an_error(status: int) -> None:
    assert refusal(status, "rate limit").kind is Limit.RATE


def test_a_request_larger_than_a_minutes_allowance() -> None:
    for status in (429, 413):
        failure = refusal(status, "Limit 6000, Requested 6001")
        assert (failure.kind, failure.window) == (Refusal.TOO_LONG, 6000)
    assert refusal(429, "Limit 6000, Requested 6000").kind is Limit.RATE
    assert refusal(429, "Request too large for model").kind is Refusal.TOO_LONG
    assert refusal(400, "Limit 6000, Requested 6001").kind is Refusal.REQUEST
    assert refusal(500, "Limit 6000, Requested 6001").kind is Fault.TRANSIENT


def test_a_command_is_given_only_where_a_model_is_missing() -> None:
    said = "model 'mistral' not found"
    assert refusal(404, said).message == f"{said} (`ollama pull mistral`)"
    assert refusal(503, said).message == said


def test_a_text_may_quote_a_list() -> None:
    body = json.dumps({"message": '[{"message": "inner"}]'}).encode()
    assert read(body).message == "inner"


def test_empty_parts_are_left_out_of_a_message() -> None:
    body = json.dumps({"message": "\x00", "detail": "what counts"}).encode()
    assert read(body).message == "what counts"
