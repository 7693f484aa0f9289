"""The rules of facts/failures.md as tables of bytes, beyond its examples."""

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muxcore.core.outcomes import Fault, Kind, Limit, Refusal
from muxcore.plugins.backend import Failure, HttpResponse
from muxcore_backends.failures import bad_reply, classify

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def failure(status: int, body: Any = b"", **headers: str) -> Failure:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(HttpResponse(status, names, raw), NOW)


def openai(message: str, code: Any = None, kind: str = "invalid_request_error") -> Any:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


STATUSES: dict[int, Kind] = {
    200: Fault.TRANSIENT,
    204: Fault.TRANSIENT,
    300: Fault.TRANSIENT,
    301: Fault.TRANSIENT,
    307: Fault.TRANSIENT,
    400: Refusal.REQUEST,
    401: Fault.AUTH,
    402: Fault.UNPAID,
    403: Fault.AUTH,
    404: Fault.NOT_FOUND,
    405: Fault.PERSISTENT,
    408: Fault.TRANSIENT,
    409: Fault.TRANSIENT,
    410: Fault.PERSISTENT,
    413: Refusal.REQUEST,
    415: Fault.PERSISTENT,
    422: Refusal.REQUEST,
    424: Fault.TRANSIENT,
    425: Fault.TRANSIENT,
    429: Limit.RATE,
    451: Fault.PERSISTENT,
    498: Fault.TRANSIENT,
    499: Fault.TRANSIENT,
    500: Fault.TRANSIENT,
    501: Fault.TRANSIENT,
    502: Fault.TRANSIENT,
    503: Fault.TRANSIENT,
    504: Fault.TRANSIENT,
    520: Fault.TRANSIENT,
    529: Fault.TRANSIENT,
    599: Fault.TRANSIENT,
    600: Fault.TRANSIENT,
    0: Fault.TRANSIENT,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"<html>x</html>", b"no", b'{"a": [']
)
def test_a_status_alone_decides(status: int, kind: Kind, body: bytes) -> None:
    found = failure(status, body)
    if status == 403 and body in {b"<html>x</html>", b"no"}:
        kind = Fault.TRANSIENT
    assert found.kind is kind
    assert found.message


TOO_LONG: list[tuple[int, Any, int | None]] = [
    (
        400,
        openai(
            "This model's maximum context length is 128,000 tokens. However, your messages"
            " resulted in 129000 tokens. Please reduce the length of the messages.",
            "context_length_exceeded",
        ),
        128_000,
    ),
    (
        400,
        openai(
            "Your input exceeds the context window of this model.",
            "context_length_exceeded",
        ),
        None,
    ),
    (
        400,
        openai(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages"
            " resulted in 300000 tokens."
        ),
        272_000,
    ),
    (
        413,
        {
            "errors": [
                {
                    "message": "The estimated number of input and maximum output tokens (26000)"
                    " exceeded this model context window limit (24000)."
                }
            ]
        },
        24_000,
    ),
    (
        200,
        {
            "base_resp": {
                "status_code": 2013,
                "status_msg": "invalid params, context window exceeds limit (2013)",
            }
        },
        None,
    ),
    (400, openai("x", "context_length_exceeded"), None),
    (
        400,
        {
            "object": "error",
            "message": "Prompt contains 40001 tokens and 0 draft tokens, too large for model"
            " with 32768 maximum context length",
            "type": "invalid_request_error",
            "code": "3051",
        },
        32_768,
    ),
    (
        400,
        {
            "message": "The decoder prompt (length 9000) is longer than the maximum model"
            " length of 8192. Make sure that `max_model_len` is no smaller."
        },
        8192,
    ),
    (
        400,
        openai(
            "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum"
            " context length is 4096 tokens and your request has 2104 input tokens"
        ),
        4096,
    ),
    (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 213462 tokens > 200000 maximum",
            },
        },
        200_000,
    ),
    (
        400,
        openai(
            "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000,"
            " decrease input length or `max_tokens` and try again"
        ),
        200_000,
    ),
    (400, {"message": "Input is too long for requested model."}, None),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum number of"
                    " tokens allowed (1048575).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        1_048_575,
    ),
    (
        400,
        {
            "code": "invalid-argument",
            "error": "This model's maximum prompt length is 131072 but the request contains"
            " 537812 tokens.",
        },
        131_072,
    ),
    (400, openai("Please reduce the length of the messages or completion."), None),
    (
        400,
        openai("Current length is 8195 while limit is 8192", "context_length_exceeded"),
        8192,
    ),
    (
        400,
        openai(
            "This endpoint's maximum context length is 163840 tokens. However, you requested"
            " about 200000 tokens"
        ),
        163_840,
    ),
    (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": '{"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}'
                },
            }
        },
        8,
    ),
    (
        403,
        openai(
            "Input token count + max_tokens parameter must be less than the context length of"
            " the model being queried"
        ),
        None,
    ),
    (
        422,
        openai(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096."
            " Given: 5000 `inputs` tokens and 512 `max_new_tokens`",
        ),
        4096,
    ),
    (422, {"error": "`inputs` must have less than 1024 tokens. Given: 3000"}, 1024),
    (
        400,
        openai(
            "Trying to keep the first 5000 tokens when context the overflows. However, the"
            " model is loaded with context length of only 4096 tokens, which is not enough."
        ),
        4096,
    ),
    (
        400,
        {"error": "The number of tokens to keep is greater than the context length"},
        None,
    ),
    (
        400,
        openai(
            "The input (9000 tokens) is longer than the model's context length (8192 tokens)."
        ),
        8192,
    ),
    (400, openai("Requested tokens (5000) exceed context window of 4096"), 4096),
    (400, {"error": "prompt too long; exceeded max context length by 200 tokens"}, None),
    (400, {"error": "the input length exceeds the context length"}, None),
    (
        400,
        openai("The prompt is too long: 205075, model maximum context length: 131071"),
        131_071,
    ),
    (400, openai("invalid params, context window exceeds limit (2013)"), None),
    (
        400,
        openai(
            "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"
        ),
        8192,
    ),
    (400, {"error": {"code": "1261", "message": "Prompt exceeds max length"}}, None),
    (
        400,
        {
            "errors": [
                {
                    "message": "the number of input tokens 9000 cannot exceed the total tokens"
                    " limit 8192 for this model"
                }
            ]
        },
        8192,
    ),
    (
        400,
        {
            "message": "too many tokens: total number of tokens in the prompt cannot exceed"
            " 4081 - received 5000"
        },
        4081,
    ),
    (
        400,
        openai("<400> InternalError: Range of input length should be [1, 30720]"),
        30_720,
    ),
    (
        413,
        openai(
            "Request body too large for gpt-4o model. Max size: 8000 tokens.",
            "tokens_limit_reached",
        ),
        8000,
    ),
    (400, openai("prompt token count of 20000 exceeds the limit of 12288"), 12_288),
    (400, openai("x", None, "exceed_context_size_error"), None),
    (
        500,
        openai("the request exceeds the available context size, try increasing it"),
        None,
    ),
    (500, openai("Context size has been exceeded."), None),
    (500, b"This model's maximum context length is 4096 tokens", 4096),
    (502, {"detail": "This model's maximum context length is 4096 tokens"}, 4096),
    (200, {"error": {"message": "Context size has been exceeded.", "code": 500}}, None),
    (200, {"error": "the request exceeds the available context size (4096 tokens)"}, 4096),
    (
        413,
        openai(
            "Request too large for model `x` in organization `o` service tier `on_demand` on"
            " tokens per minute (TPM): Limit 6000, Requested 9112, please reduce your message"
            " size and try again.",
            "rate_limit_exceeded",
            "tokens",
        ),
        6000,
    ),
    (429, openai("Limit: 30,000 / min. Requested: 34,238", "rate_limit_exceeded"), 30_000),
    (429, openai("Request too large for gpt-4o. See your limits."), None),
    (
        400,
        {"error": "Prompt is 11543 tokens but the model context window is 4096 tokens."},
        4096,
    ),
    (
        400,
        openai(
            "Unable to submit request because the input token count is 1500000 but model only"
            " supports up to 1048576. Reduce the input token count and try again."
        ),
        1_048_576,
    ),
    (400, openai("Input length 240000 exceeds the maximum length 229376"), 229_376),
    (400, openai("Input token length too long"), None),
    (
        400,
        openai(
            "This model's context window is 32,768 tokens, but the input is 40,001 tokens"
        ),
        32_768,
    ),
    # AWS begins the names of members with a capital, or writes them in one word.
    (400, {"Message": "Input is too long for requested model."}, None),
    (
        400,
        {"errorType": "ValidationException", "errorMessage": "Input is too long for it."},
        None,
    ),
    (
        200,
        {"choices": None, "error_message": "maximum context length is 163840 tokens"},
        163_840,
    ),
    (400, openai("maximum context length is 99999999999999 tokens"), None),
    (400, openai("maximum context length is 0 tokens"), None),
]


@pytest.mark.parametrize(("status", "body", "window"), TOO_LONG)
def test_a_prompt_that_is_too_long_is_recognised(
    status: int, body: Any, window: int | None
) -> None:
    found = failure(status, body, retry_after="7")
    assert (found.kind, found.window, found.hint) == (Refusal.TOO_LONG, window, None)


OTHER_WORDINGS: list[tuple[int, Any, Kind]] = [
    # Messages that resemble a long prompt, and are not about one.
    (500, openai("rpc error: context deadline exceeded"), Fault.TRANSIENT),
    (504, b"context deadline exceeded (Client.Timeout exceeded)", Fault.TRANSIENT),
    (500, openai("failed to decode input tokens: context deadline exceeded"), Fault.TRANSIENT),
    (503, openai("The prompt queue length exceeds the limit"), Fault.TRANSIENT),
    (500, openai("input length mismatch: expected a tensor, only one is given"), Fault.TRANSIENT),
    (400, openai("Invalid 'messages[3].tool_calls[0].id': string too long. Expected a string"
                 " with maximum length 40, but got a string with length 52 instead.",
                 "string_above_max_length"), Refusal.REQUEST),
    (400, openai("max_tokens is too large: 99999. This model supports at most 16384 completion"
                 " tokens"), Refusal.REQUEST),
    (400, openai("Invalid 'tools': array too long. Expected an array with maximum length 128"),
     Refusal.REQUEST),
    (413, b"<html><title>413 Request Entity Too Large</title></html>", Refusal.REQUEST),
    (429, openai("This request would exceed your organization's rate limit of 50,000 input"
                 " tokens per minute. Please reduce the length of the prompt", None,
                 "rate_limit_error"), Limit.RATE),
    (429, {"message": "Too many tokens, please wait before trying again."}, Limit.RATE),
    (429, openai("Rate limit reached on tokens per min (TPM): Limit 6000, Used 5000, Requested"
                 " 3000. Please try again in 20s."), Limit.RATE),
    (429, openai("Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1."),
     Limit.RATE),
    (429, openai("Limit 0, Requested 5"), Limit.RATE),
    (200, {"base_resp": {"status_code": 1039, "status_msg": "token limit exceeded(TPM)"}},
     Limit.RATE),
    # The limit of the answer's length is no window.
    (400, {"message": "The maximum tokens you requested exceeds the model limit of 32768"},
     Refusal.REQUEST),
    (400, openai("`max_completion_tokens` must be less than or equal to `8192`, the maximum value"
                 " for `max_completion_tokens` is less than the `context_window` for this model"),
     Refusal.REQUEST),
    (400, openai('Illegal param: "max_tokens" must be less than or equal to the model\'s context'
                 " length."), Refusal.REQUEST),
    # Quotas apart from rates.
    (429, openai("x", "insufficient_quota"), Limit.QUOTA),
    (429, openai("x", None, "insufficient_quota"), Limit.QUOTA),
    (429, openai("You exceeded your current quota, please check your plan"), Limit.QUOTA),
    (429, openai("x", None, "exceeded_current_quota_error"), Limit.QUOTA),
    (429, openai("You have run out of credits."), Limit.QUOTA),
    (429, openai("Your credit limit has been reached"), Limit.QUOTA),
    (429, openai("Your prepayment credits are depleted."), Limit.QUOTA),
    (429, openai("Your team has used all available credits or reached its limit"), Limit.QUOTA),
    (429, openai("Your newly created team doesn't have any credits yet."), Limit.QUOTA),
    (429, openai("Spend limit reached for this workspace"), Limit.QUOTA),
    (429, openai("The project has exceeded its monthly spending cap."), Limit.QUOTA),
    (429, openai("x", "billing_hard_limit_reached"), Limit.QUOTA),
    (429, {"error": {"code": "1113", "message": "Insufficient balance. Please recharge."}},
     Limit.QUOTA),
    (429, openai("You have exceeded your monthly request limit"), Limit.QUOTA),
    (429, openai("You've hit your usage limit", "usage_limit_reached"), Limit.QUOTA),
    (429, openai("Budget has been exceeded! Current cost: 11"), Limit.QUOTA),
    (429, openai("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free"
                 " model requests per day"), Limit.QUOTA),
    (429, openai("Rate limit reached on tokens per day (TPD): Limit 9, Used 8, Requested 2."
                 " Please try again in 9m38s."), Limit.RATE),
    (429, openai("requests per day: please try again in 5h"), Limit.QUOTA),
    (429, openai("requests per day: please try again in 14m59s"), Limit.RATE),
    (429, openai("requests per day: please try again in 15m1s"), Limit.QUOTA),
    (429, openai("You have exceeded the 5-hour usage quota."), Limit.QUOTA),
    (429, openai("request reached organization TPD rate limit, current: 1526210, limit: 1500000"),
     Limit.QUOTA),
    (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, Limit.QUOTA),
    (429, {"error": {"code": "1308", "message": "已达到 5 小时的使用上限。"}}, Limit.QUOTA),
    (429, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高"}}, Limit.RATE),
    (429, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高, 请降低并发, 或联系客服增加限额。"}},
     Limit.RATE),
    (429, openai("Too many concurrent requests for your monthly plan"), Limit.RATE),
    (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."},
     Limit.QUOTA),
    (429, {"message": "Service tier capacity exceeded for this model.",
           "type": "service_tier_capacity_exceeded", "code": "3505"}, Limit.RATE),
    (429, {"message": "Service tier capacity exceeded for this model.",
           "type": "insufficient_quota"}, Limit.RATE),
    (429, {"detail": "Too Many Requests"}, Limit.RATE),
    (429, b"Too Many Requests", Limit.RATE),
    (429, b"<html><title>429 Too Many Requests</title></html>", Limit.RATE),
    # Whose fault a 400 is.
    (400, openai("Your credit balance is too low to access the Anthropic API."), Fault.UNPAID),
    (400, openai("You have reached your specified API usage limits. You will regain access on"
                 " 2026-12-01 at 00:00 UTC."), Fault.UNPAID),
    (400, openai("x", "billing_hard_limit_reached"), Fault.UNPAID),
    (400, {"error": {"message": "Budget has been exceeded! Max budget: 1", "code": "400",
                     "type": "budget_exceeded"}}, Fault.UNPAID),
    (400, openai("Access denied, please make sure your account is in good standing.", "Arrearage"),
     Fault.UNPAID),
    (400, {"message": "Sorry, your account balance is insufficient"}, Fault.UNPAID),
    # Some servers say it with another status. The key is not blamed.
    (401, {"type": "error", "error": {"type": "CreditsError", "message": "Insufficient balance."}},
     Fault.UNPAID),
    (403, openai("用户额度不足", "insufficient_user_quota"), Fault.UNPAID),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, Fault.UNPAID),
    (403, openai("your account has an overdue balance", "AccountOverdueError"), Fault.UNPAID),
    (412, openai("Account x is suspended, possibly due to reaching the monthly spending limit"),
     Fault.UNPAID),
    (403, {"message": "API rate limit exceeded for user ID 1."}, Limit.RATE),
    (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
                      "status": "INVALID_ARGUMENT"}}], Fault.AUTH),
    (400, {"code": "x", "error": "Incorrect API key provided: sk***"}, Fault.AUTH),
    (400, {"error": {"code": 400, "status": "FAILED_PRECONDITION",
                     "message": "User location is not supported for the API use."}}, Fault.AUTH),
    (400, {"message": "Invalid model: devstral-9", "type": "invalid_model", "code": "1500"},
     Fault.NOT_FOUND),
    (400, openai("foo/bar is not a valid model ID"), Fault.NOT_FOUND),
    (400, openai("Model Not Exist"), Fault.NOT_FOUND),
    (400, {"code": 20012, "message": "Model does not exist. Please check it carefully."},
     Fault.NOT_FOUND),
    (400, openai("The model `gpt-9` does not exist"), Fault.NOT_FOUND),
    (404, openai("The model `gpt-9` does not exist", "model_not_found"), Fault.NOT_FOUND),
    (404, b"<html><title>404 Not Found</title></html>", Fault.NOT_FOUND),
    # The model is there, and another request is served.
    (404, openai("No endpoints found that support image input", 404), Refusal.REQUEST),
    (404, openai("No endpoints found that support the provided 'tool_choice' value.", 404),
     Refusal.REQUEST),
    (404, openai("Model gpt-monthly not found"), Fault.NOT_FOUND),
    (404, openai("No endpoints found for nousresearch/hermes-3:free.", 404), Fault.NOT_FOUND),
    (404, openai("No endpoints found matching your data policy.", 404), Fault.NOT_FOUND),
    (400, openai("Invalid value for 'tool_choice'"), Refusal.REQUEST),
    (400, {"object": "error", "message": {"detail": [
        {"type": "extra_forbidden", "loc": ["body", "store"], "msg": "Extra inputs are not"
         " permitted", "input": "maximum context length is 5 tokens"}]}}, Refusal.REQUEST),
    # Filters.
    (400, openai("x", "content_filter"), Refusal.FILTERED),
    (400, {"error": {"message": "The response was filtered due to the prompt triggering Azure"
                     " OpenAI's content management policy.", "code": "other",
                     "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, Refusal.FILTERED),
    (400, openai("Your request was rejected as a result of our safety system."), Refusal.FILTERED),
    (400, openai("x", "data_inspection_failed"), Refusal.FILTERED),
    (403, {"error": {"code": 403, "message": "openai/gpt-4o requires moderation on OpenRouter."
                     ' Your input was flagged for "violence".'}}, Refusal.FILTERED),
    (403, openai("Your account was flagged for abuse"), Fault.AUTH),
    # A firewall in front of the provider, which has not checked the key.
    (403, b"<html><title>Just a moment...</title></html>", Fault.TRANSIENT),
    (403, b"error code: 1010", Fault.TRANSIENT),
    (403, b"Invalid API key", Fault.AUTH),
    (403, b"", Fault.AUTH),
    (403, {"message": "Forbidden"}, Fault.AUTH),
    (401, b"<html><title>401 Authorization Required</title></html>", Fault.AUTH),
    (400, {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None,
                     "code": "400"}}, Fault.AUTH),
    # Templates.
    (500, openai("Value is not callable: null at row 1, column 72 (jinja)"), Refusal.TEMPLATE),
    (500, openai("Value is not callable: null at row 1, column 9:\n{%- if tools %}"),
     Refusal.TEMPLATE),
    (500, b"jinja2.exceptions.TemplateError: raise_exception", Refusal.TEMPLATE),
    (500, openai("Conversation roles must alternate user/assistant/user/assistant/..."),
     Refusal.TEMPLATE),
    (500, openai("Unable to generate parser for this template."), Refusal.TEMPLATE),
    (500, {"error": 'template: :3:9: executing "" at <.Foo>: nil pointer'}, Refusal.TEMPLATE),
    (500, openai("Only user and assistant roles are supported!"), Refusal.TEMPLATE),
    (400, openai("Conversation roles must alternate user/assistant"), Refusal.REQUEST),
    (400, openai("Unknown parameter: 'chat_template_kwargs'"), Refusal.REQUEST),
    (400, openai("Invalid prompt template id"), Refusal.REQUEST),
    # Memory.
    (500, {"error": "CUDA error: out of memory"}, Fault.PERSISTENT),
    (500, {"error": "model requires more system memory (5.3 GiB) than is available"},
     Fault.PERSISTENT),
    (503, openai("failed to allocate buffer for kv cache"), Fault.PERSISTENT),
    (503, openai("Loading model", 503, "unavailable_error"), Fault.TRANSIENT),
    # An error inside a success: by its inner code, else by its name, else transient.
    (200, {"error": {"code": 429, "message": "x"}}, Limit.RATE),
    (200, {"error": {"code": "429", "message": "x"}}, Limit.RATE),
    (200, {"error": {"code": 402, "message": "x"}}, Fault.UNPAID),
    (200, {"error": {"code": 401, "message": "x"}}, Fault.AUTH),
    (200, {"error": {"code": 400, "message": "x"}}, Refusal.REQUEST),
    (200, {"error": {"code": 404, "message": "x"}}, Fault.NOT_FOUND),
    (200, {"error": {"code": 200, "message": "x"}}, Fault.TRANSIENT),
    (200, {"error": {"code": True, "message": "x"}}, Fault.TRANSIENT),
    (201, {"error": {"status": 503}}, Fault.TRANSIENT),
    (200, {"object": "error", "message": "x", "code": "1300", "raw_status_code": 429}, Limit.RATE),
    (200, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
     Fault.TRANSIENT),
    (200, {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, Limit.RATE),
    (200, openai("x", "insufficient_quota"), Limit.QUOTA),
    (200, openai("x", "invalid_api_key"), Fault.AUTH),
    (200, openai("x"), Refusal.REQUEST),
    (200, {"error": {"status": "RESOURCE_EXHAUSTED", "message": "x"}}, Limit.RATE),
    (200, {"error": "rate limit exceeded"}, Limit.RATE),
    (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
     Fault.UNPAID),
    (200, {"error": "something else"}, Fault.TRANSIENT),
    (200, b"upstream connect error", Fault.TRANSIENT),
    (204, b"", Fault.TRANSIENT),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind"), OTHER_WORDINGS)
def test_a_wording_decides(status: int, body: Any, kind: Kind) -> None:
    found = failure(status, body)
    assert (found.kind, found.window) == (kind, None)


def gemini(*quotas: str, delay: str = "58s") -> Any:
    return [
        {
            "error": {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "message": "You exceeded your current quota, please check your plan and billing"
                " details. Please retry in 58.8s.",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                        "violations": [{"quotaId": quota} for quota in quotas],
                    },
                    {
                        "@type": "type.googleapis.com/google.rpc.RetryInfo",
                        "retryDelay": delay,
                    },
                ],
            }
        }
    ]


PER_MINUTE = "GenerateContentInputTokensPerModelPerMinute-FreeTier"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"


@pytest.mark.parametrize(
    ("quotas", "kind"),
    [
        ((PER_MINUTE,), Limit.RATE),
        ((PER_DAY,), Limit.QUOTA),
        ((PER_MINUTE, PER_DAY), Limit.QUOTA),
        ((), Limit.RATE),
    ],
)
def test_gemini_names_the_quota_that_was_met(quotas: tuple[str, ...], kind: Limit) -> None:
    # Its message speaks of "your current quota" for a limit by the minute, too.
    found = failure(429, gemini(*quotas))
    assert (found.kind, found.hint) == (kind, timedelta(seconds=58))


def test_a_402_with_retry_after_is_a_limit_of_exactly_that_length() -> None:
    assert failure(402, openai("x"), retry_after="3").hint == timedelta(seconds=3)
    assert failure(402, openai("x"), retry_after="3").kind is Limit.BUDGET
    assert failure(402, openai("x"), retry_after_ms="250").hint == timedelta(seconds=0.25)
    # Other messages that name a time.
    resets = {"x_ratelimit_reset": "60", "x_ratelimit_remaining": "0"}
    found = failure(402, gemini(PER_MINUTE), retry_after="3", **resets)
    assert (found.kind, found.hint) == (Limit.BUDGET, timedelta(seconds=3))


def test_a_402_with_an_invalid_retry_after_is_unpaid() -> None:
    assert failure(402, openai("x"), retry_after="soon").kind is Fault.UNPAID
    assert failure(402, gemini(PER_MINUTE)).kind is Fault.UNPAID


@pytest.mark.parametrize("status", [500, 502, 503, 529])
@pytest.mark.parametrize("value", ["false", "False", " FALSE "])
def test_x_should_retry_false_is_heeded(status: int, value: str) -> None:
    assert failure(status, x_should_retry=value).kind is Fault.PERSISTENT


def test_x_should_retry_is_ignored_for_other_statuses() -> None:
    assert failure(500, x_should_retry="true").kind is Fault.TRANSIENT
    assert failure(409, x_should_retry="false").kind is Fault.TRANSIENT
    assert failure(429, x_should_retry="false").kind is Limit.RATE
    assert failure(400, x_should_retry="false").kind is Refusal.REQUEST


def test_hints_go_with_faults_and_limits_only() -> None:
    assert failure(503, retry_after="7").hint == timedelta(seconds=7)
    assert failure(429, retry_after="7").hint == timedelta(seconds=7)
    assert failure(400, retry_after="7").hint is None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            404,
            "If you created the deployment within the last 5 minutes, please wait a moment.",
        ),
        (404, "It can take up to 15 minutes for access to propagate."),
        (403, "Retry in 10 minutes with another key."),
        (410, "Try again in 10 minutes at another address."),
    ],
)
def test_what_no_time_heals_is_not_disabled_for_a_time_in_the_words(
    status: int, message: str
) -> None:
    assert failure(status, openai(message)).hint is None
    assert failure(status, openai(message), retry_after="7").hint == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("number", "window"),
    [
        ("128000", 128_000),
        ("128,000", 128_000),
        ("128.000", 128_000),
        ("128 000", 128_000),
        ("128'000", 128_000),
        ("1_048_576", 1_048_576),
        # What is no number of tokens teaches no window: a tiny one would disable the model.
        ("128k", None),
        ("128 K", None),
        ("1 million", None),
        ("1M", None),
        ("1.5 million", None),
        ("1.5M", None),
    ],
)
def test_a_window_is_read_in_every_way_of_writing_numbers(
    number: str, window: int | None
) -> None:
    found = failure(400, openai(f"This model's maximum context length is {number} tokens."))
    assert (found.kind, found.window) == (Refusal.TOO_LONG, window)


def deep(levels: int) -> Any:
    inner: Any = {"message": "The words"}
    for _ in range(levels):
        inner = {"error": inner}
    return inner


MESSAGES: list[tuple[int, Any, str]] = [
    (400, openai("The words"), "The words"),
    (400, {"message": "The words"}, "The words"),
    (400, {"error": "The words"}, "The words"),
    (400, {"detail": "The words"}, "The words"),
    (400, {"detail": {"msg": "The words"}}, "The words"),
    (400, {"errors": ["The words", {"message": "and more"}]}, "The words; and more"),
    (400, [{"error": {"message": "The words"}}], "The words"),
    (400, "The words", "The words"),
    (400, b"The words", "The words"),
    (400, {"error_description": "The words"}, "The words"),
    (400, {"base_resp": {"status_code": 1008, "status_msg": "The words"}}, "The words"),
    (400, {"a": {"error": "not read: nobody puts it there"}, "message": "The words"}, "The words"),
    (400, deep(7), "The words"),
    (400, deep(9), "HTTP 400 without a word of explanation"),
    (400, {"title": "The words", "detail": "and more"}, "The words; and more"),
    (403, {"Message": "The words"}, "The words"),
    (400, {"errorMessage": "The words"}, "The words"),
    (400, {"Error": {"Code": "x", "Message": "The words"}}, "The words"),
    (400, openai("Provider returned error"), "Provider returned error"),
    (
        502,
        {"error": {"message": "Provider returned error", "metadata": {"raw": "The words"}}},
        "Provider returned error; The words",
    ),
    (500, {"message": '{"error": {"message": "The words"}}'}, "The words"),
    (500, {"message": "{broken"}, "{broken"),
    (400, {"error": {"message": "Same"}, "message": "Same"}, "Same"),
    (
        422,
        {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}]},
        "body.messages.0: Field required",
    ),
    (502, b"<html><head><title>Bad\n gateway</title></head><body>x</body></html>", "Bad gateway"),
    (502, b"<p>Oops <b>all</b> gone &amp; done</p><script>x=1</script>", "Oops all gone & done"),
    (502, b"<p>Oops<style>x {", "Oops"),
    (500, b"\xef\xbb\xbf The words", "The words"),
    (500, b"caf\xe9", "caf\ufffd"),
    (500, {"message": "a\x1b[31mred\x1b[0m\nb\tc\x00\x07 \x9b d"}, "ared b c d"),
    (500, {"message": "\x1b]8;;https://x\x07link\x1b]8;;\x07 \u202eover\u200b"}, "link over"),
    (500, {"message": "half \ud800 a character"}, "half a character"),
    (500, {"message": " \n "}, "HTTP 500 without a word of explanation"),
    (408, {}, "HTTP 408 without a word of explanation"),
    (500, b'{"message": "cut', "HTTP 500 without a word of explanation"),
    (200, {"error": {"code": 502, "message": "The words"}}, "The words"),
    (
        200,
        b"<html>Sign in to Wi-Fi</html>",
        "a web page came instead of an answer (from a proxy?): Sign in to Wi-Fi",
    ),
    (
        403,
        b"error code: 1020",
        "a plain text came instead of an answer (from a proxy?): error code: 1020",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "message"), MESSAGES)
def test_messages_are_those_of_the_server(status: int, body: Any, message: str) -> None:
    assert failure(status, body).message == message


def test_long_messages_are_cut() -> None:
    message = failure(400, openai("word " * 1000)).message
    assert len(message) <= 300
    assert message.endswith("word…")


NO_MODEL = [
    ('model "qwen3:4b" not found, try pulling it first', "qwen3:4b"),
    ("model 'hf.co/a/b:Q4_K_M' not found", "hf.co/a/b:Q4_K_M"),
    ("model llama3 not found", "llama3"),
    ("model '$(reboot)' not found", None),
    ("The model `gpt-9` does not exist", None),
]


@pytest.mark.parametrize(("message", "name"), NO_MODEL)
def test_a_missing_model_of_ollama_has_the_command_that_pulls_it(
    message: str, name: str | None
) -> None:
    advice = "" if name is None else f" (`ollama pull {name}`)"
    assert failure(404, openai(message)).message == message + advice


REDIRECTS = [
    ("https://login.example/sign?in=secret", " to login.example"),
    ("http://user:password@host:8080/x", " to host:8080"),
    ("/v2/chat/completions", ""),
    ("", ""),
]


@pytest.mark.parametrize(("location", "where"), REDIRECTS)
def test_a_redirect_is_reported_as_not_followed(location: str, where: str) -> None:
    found = failure(307, b"", location=location)
    assert found.kind is Fault.TRANSIENT
    assert found.message == f"HTTP 307: a redirect{where}, which is never followed"


def test_a_bad_reply_has_the_message_of_the_server_or_a_default() -> None:
    error = bad_reply(
        HttpResponse(200, {}, b'{"error": {"code": 429, "message": "x"}}'), "ours"
    )
    assert (str(error), error.failure) == ("x", Failure(Limit.RATE, message="x"))
    error = bad_reply(HttpResponse(200, {}, b"{"), "ours")
    assert (str(error), error.failure) == ("ours", Failure(Fault.TRANSIENT, message="ours"))


NESTED = b"[" * 100_000
WORDS = st.sampled_from(
    [
        "error",
        "message",
        "detail",
        "code",
        "status",
        "type",
        "loc",
        "n_ctx",
        "raw",
        "quotaId",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(WORDS | st.text(), inner),
)


@given(
    st.integers(0, 700),
    st.binary() | JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(["retry-after", "x-should-retry", "location", "x-ratelimit-reset"]),
        st.text(),
    ),
)
@example(500, NESTED, {})
@example(200, NESTED, {})
@example(400, b'{"detail": [{"loc": [1e999, NaN, []], "msg": "x"}]}', {})
@example(429, b'{"n_ctx": ' + b"9" * 5000 + b"}", {})
@example(429, '"limit \u0664, requested \u0665"'.encode(), {"retry-after": "\u0663"})
def test_no_bytes_raise_an_error(status: int, body: bytes, headers: dict[str, str]) -> None:
    found = classify(HttpResponse(status, headers, body), NOW)
    assert len(found.message) <= 300
    assert not {unicodedata.category(character) for character in found.message} & {
        "Cc",
        "Cs",
    }


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=400))
def test_quoted_text_of_a_user_decides_nothing(text: str) -> None:
    body = {"detail": [{"msg": "Field required", "input": text + " jinja out of memory"}]}
    assert failure(422, body).kind is Refusal.REQUEST
