"""What each dialect's real server refuses, and in which words: judges of request bodies.

Each judge takes a parsed body and gives None, or the status and body of the refusal. The
words are those that users of these servers have reported.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Body: TypeAlias = Mapping[str, Any]
Refusal: TypeAlias = tuple[int, Any]
Judge: TypeAlias = Callable[[Body], Refusal | None]

FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class RefusedError(Exception):
    def __init__(self, status: int, body: Any) -> None:
        self.refusal = (status, body)
        super().__init__(f"{status} {json.dumps(body)}")


def judged(check: Callable[[Body], None]) -> Judge:
    def judge(body: Body) -> Refusal | None:
        try:
            check(body)
        except RefusedError as error:
            return error.refusal
        return None

    return judge


def type_of(part: Any) -> str:
    return str(part.get("type"))


# --- Mistral --------------------------------------------------------------------------------

MISTRAL_BODY = frozenset(
    {
        "model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop",
        "random_seed", "metadata", "response_format", "tools", "tool_choice",
        "presence_penalty", "frequency_penalty", "n", "prediction", "parallel_tool_calls",
        "reasoning_effort", "prompt_mode", "safe_prompt",
    }
)  # fmt: skip
MISTRAL_MEMBERS = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "prefix"},
    "tool": {"role", "content", "name", "tool_call_id"},
}
MISTRAL_PARTS = {
    "text": {"type", "text"},
    "image_url": {"type", "image_url"},
    "thinking": {"type", "thinking", "closed", "signature"},
}
MISTRAL_AFTER = {
    None: {"system", "user", "assistant"},
    "system": {"system", "user", "assistant"},
    "user": {"system", "user", "assistant"},
    "assistant": {"user", "assistant", "tool"},
    "tool": {"assistant", "tool"},
}


def _mistral_error(message: str, kind: str, code: str) -> RefusedError:
    body = {
        "object": "error",
        "message": message,
        "type": kind,
        "param": None,
        "code": code,
    }
    return RefusedError(400, body)


def _extra_forbidden(*place: Any) -> RefusedError:
    fault = {"type": "extra_forbidden", "loc": ["body", *place]}
    return RefusedError(
        422, {"detail": [{**fault, "msg": "Extra inputs are not permitted", "input": ""}]}
    )


def mistral(*, reasons: bool, sees: bool) -> Judge:
    def check(body: Body) -> None:
        for name in body:
            if name not in MISTRAL_BODY:
                raise _extra_forbidden(name)
        for index, message in enumerate(body["messages"]):
            _mistral_members(index, message)
            _mistral_parts(message, reasons=reasons, sees=sees)
        _mistral_order(body["messages"])
        _mistral_calls(body["messages"])

    return judged(check)


def _mistral_members(index: int, message: Body) -> None:
    role = message["role"]
    if role not in MISTRAL_MEMBERS:
        tag = {"type": "union_tag_invalid", "loc": ["body", "messages", index]}
        raise RefusedError(422, {"detail": [{**tag, "msg": f"Input tag '{role}' found"}]})
    for name in message:
        if name not in MISTRAL_MEMBERS[role]:
            raise _extra_forbidden("messages", index, role, name)
    for call in message.get("tool_calls") or ():
        if extra := call.keys() - {"id", "type", "index", "function"}:
            raise _extra_forbidden("messages", index, role, "tool_calls", *extra)
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        known = MISTRAL_PARTS.get(type_of(part), {"type"})
        if extra := part.keys() - known:
            raise _extra_forbidden("messages", index, role, "content", *extra)


def _mistral_parts(message: Body, *, reasons: bool, sees: bool) -> None:
    content, role = message.get("content"), message["role"]
    for part in content if isinstance(content, list) else ():
        match type_of(part):
            case "text":
                pass
            case "thinking" if role == "assistant":
                if not reasons:
                    raise _mistral_error(
                        "Reasoning input is not enabled for this model",
                        "invalid_request_invalid_args",
                        "3051",
                    )
            case "image_url" if role == "user":
                if not sees:
                    raise _mistral_error(
                        "Image input is not enabled for this model",
                        "invalid_request_invalid_args",
                        "3051",
                    )
            case kind:
                raise _mistral_error(
                    f"Unexpected content chunk types in {role} message: [{kind!r}]",
                    "invalid_request_error",
                    "3200",
                )


def _mistral_order(messages: list[Body]) -> None:
    kind, code = "invalid_request_message_order", "3230"
    if not messages:
        raise _mistral_error("Conversation must have at least one message", kind, code)
    before = None
    for message in messages:
        if message["role"] not in MISTRAL_AFTER[before]:
            words = f"Unexpected role '{message['role']}' after role '{before}'"
            raise _mistral_error(words, kind, code)
        before = message["role"]
    if before == "assistant" and not messages[-1].get("prefix"):
        raise _mistral_error(
            "Expected last role User or Tool (or Assistant with prefix True) for serving"
            " but got assistant",
            kind,
            code,
        )


def _mistral_calls(messages: list[Body]) -> None:  # noqa: C901 - a list of rules
    kind, code = "invalid_request_message_order", "3230"
    waiting: set[str] = set()
    # The calls of a first message are overlooked, so their results are unexpected.
    for message in messages[1:]:
        if message["role"] == "tool":
            identity = message["tool_call_id"]
            _mistral_id(identity)
            if identity not in waiting:
                words = f"Unexpected tool call id {identity} in tool results"
                raise _mistral_error(words, kind, code)
            waiting.remove(identity)
            continue
        if waiting:
            words = "Not the same number of function calls and responses"
            raise _mistral_error(words, kind, code)
        if message["role"] != "assistant":
            continue
        calls = message.get("tool_calls") or []
        if not calls and not message.get("content"):
            raise _mistral_error(
                "Assistant message must have either content or tool_calls, but not none.",
                "invalid_request_assistant_message",
                "3240",
            )
        for call in calls:
            _mistral_id(call["id"])
            if call["id"] in waiting:
                words = f"Duplicate tool call id {call['id']} in assistant message"
                raise _mistral_error(words, kind, code)
            waiting.add(call["id"])
            name = call["function"]["name"]
            if not FUNCTION_NAME.fullmatch(name):
                raise _mistral_error(
                    f"Function name was {name} but must be a-z, A-Z, 0-9, or contain"
                    " underscores and dashes, with a maximum length of 64.",
                    "invalid_function_call",
                    "3280",
                )
    if waiting:
        words = "Not the same number of function calls and responses"
        raise _mistral_error(words, kind, code)


def _mistral_id(identity: Any) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9]{9}", str(identity)):
        raise _mistral_error(
            f"Tool call id was {identity} but must be a-z, A-Z, 0-9, with a length of 9.",
            "invalid_function_call",
            "3280",
        )


# --- OpenAI and those that copy it closely --------------------------------------------------

OPENAI_MEMBERS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls", "refusal", "audio"},
    "tool": {"role", "content", "tool_call_id"},
}


def _openai_error(message: str, param: str | None = None, code: str | None = None) -> Any:
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    return RefusedError(400, {"error": error})


def openai(*, sees: bool) -> Judge:
    def check(body: Body) -> None:
        for index, message in enumerate(body["messages"]):
            known = OPENAI_MEMBERS[message["role"]]
            for name in message:
                if name not in known:
                    place = f"messages[{index}].{name}"
                    raise _openai_error(
                        f"Unknown parameter: '{place}'.", place, "unknown_parameter"
                    )
            _openai_content(index, message, sees=sees)
            _openai_calls(index, message)
        _openai_pairs(body["messages"])

    return judged(check)


def groq(*, sees: bool) -> Judge:
    inner = openai(sees=sees)

    def check(body: Body) -> None:
        for index, message in enumerate(body["messages"]):
            for name in message.keys() - OPENAI_MEMBERS[message["role"]]:
                raise _openai_error(
                    f"'messages.{index}' : for 'role:{message['role']}' the following must"
                    f" be satisfied[('messages.{index}' : property '{name}' is unsupported)]"
                )
        if refusal := inner(body):
            raise RefusedError(*refusal)

    return judged(check)


def _openai_content(index: int, message: Body, *, sees: bool) -> None:
    role, content, place = message["role"], message.get("content"), f"messages[{index}]"
    if content is None and not message.get("tool_calls"):
        raise _openai_error(
            "Invalid value for 'content': expected a string, got null.", f"{place}.content"
        )
    if isinstance(content, list) and not content:
        raise _openai_error(
            f"Invalid '{place}.content': empty array. Expected an array with minimum length"
            " 1, but got an empty array instead.",
            f"{place}.content",
            "empty_array",
        )
    for part in content if isinstance(content, list) else ():
        kind = type_of(part)
        if kind == "image_url" and role != "user":
            raise _openai_error(
                f"Invalid '{place}'. Image URLs are only allowed for messages with role"
                f" 'user', but this message with role '{role}' contains an image URL.",
                place,
                "invalid_value",
            )
        if kind == "image_url" and not sees:
            raise _openai_error("Invalid content type. image_url is not supported.")
        if kind not in {"text", "image_url"}:
            raise _openai_error(f"Invalid value: '{kind}'.", place, "invalid_value")


def _openai_calls(index: int, message: Body) -> None:
    if message["role"] != "assistant" or "tool_calls" not in message:
        return
    place = f"messages[{index}].tool_calls"
    if not message["tool_calls"]:
        raise _openai_error(
            f"Invalid '{place}': empty array. Expected an array with minimum length 1, but"
            " got an empty array instead.",
            place,
            "empty_array",
        )
    for number, call in enumerate(message["tool_calls"]):
        identity, name = call["id"], call["function"]["name"]
        if len(identity) > 40:
            raise _openai_error(
                f"Invalid '{place}[{number}].id': string too long. Expected a string with"
                f" maximum length 40, but got a string with length {len(identity)} instead.",
                f"{place}[{number}].id",
                "string_above_max_length",
            )
        if call["type"] != "function" or not isinstance(call["function"]["arguments"], str):
            raise _openai_error(f"Invalid type for '{place}[{number}]'.", place)
        if not FUNCTION_NAME.fullmatch(name):
            raise _openai_error(
                f"Invalid '{place}[{number}].function.name': string does not match pattern."
                " Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                f"{place}[{number}].function.name",
                "invalid_value",
            )


def _openai_pairs(messages: list[Body]) -> None:
    waiting: list[str] = []
    for index, message in enumerate([*messages, {"role": "end"}]):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                raise _openai_error(
                    "Invalid parameter: messages with role 'tool' must be a response to a"
                    " preceeding message with 'tool_calls'.",
                    f"messages.[{index}].role",
                )
            waiting.remove(message["tool_call_id"])
        elif waiting:
            raise _openai_error(
                "An assistant message with 'tool_calls' must be followed by tool messages"
                " responding to each 'tool_call_id'. The following tool_call_ids did not"
                f" have response messages: {', '.join(waiting)}",
                f"messages.[{index}].role",
            )
        else:
            waiting = [call["id"] for call in message.get("tool_calls") or ()]


# --- OpenAI's Responses API -----------------------------------------------------------------

RESPONSES_BODY = frozenset(
    {
        "include", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata",
        "model", "parallel_tool_calls", "prompt_cache_key", "reasoning", "safety_identifier",
        "service_tier", "store", "stream", "temperature", "text", "tool_choice", "tools",
        "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip
ITEMS = {
    "message": {"type", "role", "content"},
    "reasoning": {"type", "id", "summary", "encrypted_content"},
    "function_call": {"type", "call_id", "name", "arguments"},
    "function_call_output": {"type", "call_id", "output"},
}


def responses(*, sees: bool, signature: str) -> Judge:
    """Judge as OpenAI does; a model without a signature does not reason."""

    def check(body: Body) -> None:
        for name in body.keys() - RESPONSES_BODY:
            raise _openai_error(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        if signature and "temperature" in body:
            raise _openai_error(
                "Unsupported parameter: 'temperature' is not supported with this model.",
                "temperature",
            )
        if not signature and "include" in body:
            raise _openai_error("Encrypted content is not supported with this model.")
        for index, item in enumerate(body["input"]):
            place = f"input[{index}]"
            for name in item.keys() - ITEMS[item["type"]]:
                raise _openai_error(f"Unknown parameter: '{place}.{name}'.", place)
            _response_item(place, item, sees=sees, signature=signature)
        _response_order(body["input"])
        _response_pairs(body["input"])

    return judged(check)


def _response_item(place: str, item: Body, *, sees: bool, signature: str) -> None:
    match item["type"]:
        case "reasoning" if item["encrypted_content"] != signature:
            raise _openai_error(
                f"The encrypted content for item {item['id']} could not be verified.",
                code="invalid_encrypted_content",
            )
        case "function_call" if not FUNCTION_NAME.fullmatch(item["name"]):
            raise _openai_error(
                f"Invalid '{place}.name': string does not match pattern. Expected a string"
                " that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                f"{place}.name",
            )
        case "function_call" if not 1 <= len(item["call_id"]) <= 64:
            raise _openai_error(f"Invalid '{place}.call_id': string too long.", place)
        case "message" if not item["content"] and item["role"] == "assistant":
            raise _openai_error(f"Invalid '{place}.content': empty array.", place)
        case _:
            pass
    content = item.get("content", item.get("output"))
    is_answer = item.get("role") == "assistant"
    known = {"output_text", "refusal"} if is_answer else {"input_text", "input_image"}
    for part in content if isinstance(content, list) else ():
        if part["type"] not in known:
            raise _openai_error(f"Invalid value: '{part['type']}'.", place, "invalid_value")
        if part["type"] == "input_image" and not sees:
            raise _openai_error("Invalid content type. image_url is not supported.")


def _response_order(items: list[Body]) -> None:
    for item, following in itertools.pairwise([*items, {"type": "end"}]):
        if item["type"] != "reasoning":
            continue
        is_own = (
            following["type"] == "function_call" or following.get("role") == "assistant"
        )
        if not is_own:
            raise _openai_error(
                f"Item '{item['id']}' of type 'reasoning' was provided without its required"
                " following item."
            )


def _response_pairs(items: list[Body]) -> None:
    called = [item["call_id"] for item in items if item["type"] == "function_call"]
    got = [item["call_id"] for item in items if item["type"] == "function_call_output"]
    for identity in called:
        if identity not in got:
            raise _openai_error(f"No tool output found for function call {identity}.")
    for identity in got:
        if identity not in called:
            raise _openai_error(
                f"No tool call found for function call output with call_id {identity}."
            )


# --- Google's OpenAI-compatible front -------------------------------------------------------


def google(*, sees: bool) -> Judge:
    inner = openai(sees=sees)

    def check(body: Body) -> None:
        bare = []
        for index, message in enumerate(body["messages"]):
            calls = message.get("tool_calls") or []
            if calls and not calls[0].get("extra_content"):
                raise _google_error(
                    "Function call is missing a thought_signature in functionCall parts."
                    " This is required for tools to work correctly."
                )
            for name in message.keys() - OPENAI_MEMBERS[message["role"]]:
                raise _google_error(
                    f'Invalid JSON payload received. Unknown name "{name}" at'
                    f" 'messages[{index}]': Cannot find field."
                )
            bare.append(message)
        if refusal := inner({**body, "messages": bare}):
            raise RefusedError(*refusal)

    return judged(check)


def _google_error(message: str) -> RefusedError:
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}
    return RefusedError(400, [{"error": error}])


# --- DeepSeek and Kimi ----------------------------------------------------------------------


def deepseek(body: Body) -> None:
    for index, message in enumerate(body["messages"]):
        place = (
            f"Failed to deserialize the JSON body into the target type: messages[{index}]"
        )
        if "content" not in message:
            raise _openai_error(f"{place}: missing field `content` at line 1")
        if isinstance(message["content"], list):
            raise _openai_error(f"{place}: invalid type: sequence, expected a string")
        if message["role"] == "assistant" and "reasoning_content" not in message:
            raise _openai_error(
                "The `reasoning_content` in the thinking mode must be passed back to the API.",
                code="invalid_request_error",
            )
        if message["role"] == "assistant":
            _openai_calls(index, message)
    _openai_pairs(body["messages"])


def kimi(*, sees: bool) -> Judge:
    def check(body: Body) -> None:
        for index, message in enumerate(body["messages"]):
            if message["role"] == "assistant" and not message.get("reasoning_content"):
                raise _openai_error(
                    "thinking is enabled but reasoning_content is missing in assistant tool"
                    f" call message at index {index}"
                )
            _openai_content(index, message, sees=sees)
            if message["role"] == "assistant" and not message.get("tool_calls"):
                content = message.get("content")
                if not content and not message["reasoning_content"].strip():
                    raise _openai_error(
                        f"the message at position {index} with role 'assistant' must not be"
                        " empty"
                    )
            _openai_calls(index, message)
        _openai_pairs(body["messages"])

    return judged(check)


# --- Chat templates: llama.cpp with a template of Mistral's ---------------------------------


def _jinja(words: str) -> RefusedError:
    message = (
        f"\n------------\nWhile executing CallExpression\nError: Jinja Exception: {words}"
    )
    return RefusedError(
        500, {"error": {"code": 500, "message": message, "type": "server_error"}}
    )


def template(*, nine: bool, sees: bool) -> Judge:
    """Judge as llama.cpp does: first what it parses itself, then the model's template."""

    def check(body: Body) -> None:
        messages = list(body["messages"])
        for message in messages:
            _llama_message(message, sees=sees)
        if messages and messages[0]["role"] == "system":
            messages = messages[1:]
        turn = 0
        for message in messages:
            role, calls = message["role"], message.get("tool_calls")
            if role not in {"user", "assistant", "tool"}:
                raise _jinja(
                    f"Only user, assistant and tool roles are supported, got {role}."
                )
            if role == "user" or (role == "assistant" and not calls):
                if (role == "user") != (turn % 2 == 0):
                    raise _jinja(
                        "After the optional system message, conversation roles must"
                        " alternate user and assistant roles except for tool calls and"
                        " results."
                    )
                turn += 1
            identities = [call["id"] for call in calls or ()]
            identities += [message["tool_call_id"]] if role == "tool" else []
            if nine and any(len(identity) != 9 for identity in identities):
                raise _jinja("Tool call IDs should be alphanumeric strings with length 9!")

    return judged(check)


def single(body: Body) -> None:
    """The template of Llama 3.1, 3.2 and 3.3."""
    if any(len(message.get("tool_calls") or ()) > 1 for message in body["messages"]):
        raise _jinja("This model only supports single tool-calls at once!")


def _llama_message(message: Body, *, sees: bool) -> None:
    content, calls = message.get("content"), message.get("tool_calls")
    if not content and content != "" and not calls:
        text = "All non-assistant messages must contain 'content'"
        raise RefusedError(400, {"error": {"code": 400, "message": text}})
    for part in content if isinstance(content, list) else ():
        if type_of(part) == "image_url" and not sees:
            text = (
                "image input is not supported - hint: if this is unexpected, you may need to"
                " provide the mmproj"
            )
            raise RefusedError(500, {"error": {"code": 500, "message": text}})
        if type_of(part) not in {"text", "image_url"}:
            text = "unsupported content[].type"
            raise RefusedError(400, {"error": {"code": 400, "message": text}})
    for call in calls or ():
        if not isinstance(_parsed(call["function"]["arguments"]), dict):
            text = "Failed to parse tool call arguments as JSON: parse error"
            raise RefusedError(500, {"error": {"code": 500, "message": text}})


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def ollama(body: Body) -> None:
    for message in body["messages"]:
        content = message.get("content")
        if not isinstance(content, str | list) and not message.get("tool_calls"):
            text = f"invalid message content type: {type(content).__name__}"
            raise RefusedError(
                400, {"error": {"message": text, "type": "invalid_request_error"}}
            )
        for call in message.get("tool_calls") or ():
            if not isinstance(_parsed(call["function"]["arguments"]), dict):
                text = "invalid tool call arguments"
                raise RefusedError(400, {"error": {"message": text, "code": None}})
        for part in content if isinstance(content, list) else ():
            if type_of(part) not in {"text", "image_url"}:
                text = "invalid message format"
                raise RefusedError(400, {"error": {"message": text, "code": None}})


# --- Anthropic ------------------------------------------------------------------------------

ANTHROPIC_BODY = frozenset(
    {
        "model", "messages", "max_tokens", "system", "tools", "tool_choice", "thinking",
        "output_config", "temperature", "top_p", "top_k", "stop_sequences", "metadata",
        "stream", "service_tier",
    }
)  # fmt: skip
BLOCKS = {
    "text": {"type", "text", "cache_control"},
    "image": {"type", "source", "cache_control"},
    "tool_use": {"type", "id", "name", "input", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
}
SAID_BY = {
    "user": {"text", "image", "tool_result"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
}


def _anthropic_error(message: str) -> RefusedError:
    error = {"type": "invalid_request_error", "message": message}
    return RefusedError(400, {"type": "error", "error": error})


def anthropic(*, sees: bool, signature: str, adaptive: bool = False) -> Judge:  # noqa: C901 - a list of rules
    def check(body: Body) -> None:
        for name in body:
            if name not in ANTHROPIC_BODY:
                raise _anthropic_error(f"{name}: Extra inputs are not permitted")
        if "max_tokens" not in body:
            raise _anthropic_error("max_tokens: Field required")
        messages = body["messages"]
        if not messages:
            raise _anthropic_error("messages: at least one message is required")
        if messages[0]["role"] != "user":
            raise _anthropic_error('messages: first message must use the "user" role')
        if messages[-1]["role"] != "user":
            raise _anthropic_error(
                "This model does not support assistant message prefill. The conversation"
                " must end with a user message."
            )
        for index, message in enumerate(messages):
            _anthropic_message(index, message, sees=sees, signature=signature)
        for block in body.get("system", ()):
            _anthropic_block("system.0", "user", block, sees=False)
        _anthropic_pairs(messages)
        _anthropic_thinking(body, adaptive=adaptive)
        uses = any(b["type"] == "tool_use" for m in messages for b in m["content"])
        if uses and not body.get("tools"):
            raise _anthropic_error(
                "Requests which include `tool_use` or `tool_result` blocks must define tools"
            )

    return judged(check)


def _anthropic_message(index: int, message: Body, *, sees: bool, signature: str) -> None:
    for number, block in enumerate(message["content"]):
        place = f"messages.{index}.content.{number}"
        _anthropic_block(place, message["role"], block, sees=sees)
        if block["type"] == "thinking" and block["signature"] != signature:
            raise _anthropic_error(f"{place}: Invalid `signature` in `thinking` block")


def _anthropic_block(place: str, role: str, block: Body, *, sees: bool) -> None:  # noqa: C901 - a list of rules
    kind = block["type"]
    if kind not in SAID_BY[role]:
        raise _anthropic_error(
            f"{place}: `{kind}` blocks are not permitted for role {role}"
        )
    if extra := block.keys() - BLOCKS[kind]:
        raise _anthropic_error(
            f"{place}.{kind}.{min(extra)}: Extra inputs are not permitted"
        )
    if kind == "text" and not block["text"].strip():
        raise _anthropic_error(
            "messages: text content blocks must be non-empty"
            if not block["text"]
            else "messages: text content blocks must contain non-whitespace text"
        )
    if kind == "tool_use":
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]):
            raise _anthropic_error(
                f"{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            )
        if not isinstance(block["input"], dict):
            raise _anthropic_error(
                f"{place}.tool_use.input: Input should be a valid dictionary"
            )
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", block["name"]):
            raise _anthropic_error(f"{place}.tool_use.name: String should match pattern")
    if kind == "image":
        if not sees:
            raise _anthropic_error(f"{place}: images are not supported by this model")
        source = block["source"]
        if source["type"] == "base64" and not source["media_type"].startswith("image/"):
            raise _anthropic_error(
                f"{place}.image.source.base64.media_type: Input should be"
            )
    if kind == "tool_result":
        for inner in block.get("content", ()):
            _anthropic_block(place, "user", inner, sees=sees)


def _anthropic_pairs(messages: list[Body]) -> None:
    seen: set[str] = set()
    before: list[str] = []
    for index, message in enumerate([*messages, {"role": "end", "content": []}]):
        results = [
            b["tool_use_id"] for b in message["content"] if b["type"] == "tool_result"
        ]
        kinds = [block["type"] == "tool_result" for block in message["content"]]
        for identity in results:
            if identity not in before:
                raise _anthropic_error(
                    f"messages.{index}.content.0: unexpected `tool_use_id` found in"
                    f" `tool_result` blocks: {identity}. Each `tool_result` block must have"
                    " a corresponding `tool_use` block in the previous message."
                )
        if missing := [identity for identity in before if identity not in results]:
            raise _anthropic_error(
                f"messages.{index - 1}: `tool_use` ids were found without `tool_result`"
                f" blocks immediately after: {', '.join(missing)}. Each `tool_use` block must"
                " have a corresponding `tool_result` block in the next message."
            )
        if len(results) != len(set(results)):
            raise _anthropic_error(
                f"messages.{index}: each tool_use must have a single result. Found multiple"
                " `tool_result` blocks with the same id"
            )
        if before and sorted(kinds, reverse=True) != kinds:
            raise _anthropic_error("`tool_result` blocks must come first in the content")
        before = [b["id"] for b in message["content"] if b["type"] == "tool_use"]
        if len(before) != len(set(before)) or seen & set(before):
            raise _anthropic_error(f"messages.{index}: `tool_use` ids must be unique")
        seen |= set(before)


def _anthropic_thinking(body: Body, *, adaptive: bool) -> None:
    thinking = body.get("thinking", {"type": "disabled"})
    if thinking["type"] == "disabled":
        return
    if body.get("temperature", 1) != 1:
        raise _anthropic_error(
            "`temperature` may only be set to 1 when thinking is enabled"
        )
    if adaptive:
        if thinking["type"] == "enabled":
            raise _anthropic_error(
                '"thinking.type.enabled" is not supported for this model. Use'
                ' "thinking.type.adaptive" and "output_config.effort"'
            )
        return
    if not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
        raise _anthropic_error("`max_tokens` must be greater than `thinking.budget_tokens`")
    answers = [
        (index, message)
        for index, message in enumerate(body["messages"])
        if message["role"] == "assistant"
    ]
    if not answers:
        return
    index, last = answers[-1]
    kinds = [block["type"] for block in last["content"]]
    if "tool_use" in kinds and kinds[0] not in {"thinking", "redacted_thinking"}:
        raise _anthropic_error(
            f"messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`,"
            f" but found `{kinds[0]}`. When `thinking` is enabled, a final `assistant`"
            " message must start with a thinking block (preceeding the lastmost set of"
            " `tool_use` and `tool_result` blocks)."
        )


def both(*judges: Judge) -> Judge:
    def judge(body: Body) -> Refusal | None:
        return next((refusal for one in judges if (refusal := one(body))), None)

    return judge
