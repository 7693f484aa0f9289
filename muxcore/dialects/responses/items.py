"""Items of the Responses API from messages, and messages from items. Pure.

What is one message of the assistant in chat completions is several items here: its reasoning,
its words, and each of its calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muxcore import jsontext
from muxcore.chat import (
    ORIGIN,
    REASONING,
    REASONING_ITEMS,
    Json,
    Message,
    Messages,
)
from muxcore.dialects.reading import (
    UNKNOWN_PART,
    MalformedItemError,
    at,
    content_of,
    text_in,
    unknown_part,
)
from muxcore.dialects.sealing import unsealed

SEAM = "\n\n"
"""Between the parts of one reasoning."""

# Tuples, as whatever a client sends can be looked for in them.
ROLES = ("user", "system", "developer")
DETAILS = ("low", "high")
"""How closely to look at an image, in the words that chat completions have as well."""
TEXTS = ("input_text", "output_text", "text", "refusal")
FREE_INPUT = "input"
"""The one parameter that a tool of free text has in chat completions."""
ENVELOPE = frozenset({"type", "id", "call_id", "status", "caller", "created_by"})
"""Members of a call that say nothing of what is to be done."""


# --- messages from items --------------------------------------------------------------------


def messages_of(items: Sequence[Json]) -> list[Json]:
    """Make the messages of a conversation. Raise `MalformedItemError`.

    Reasoning and calls join the assistant's message beside them; each item of words is a
    message of its own.
    """
    messages: list[Json] = []
    for position, item in enumerate(items):
        with at(f"[{position}]"):
            _add(messages, item)
    return messages


def _add(messages: list[Json], item: Json) -> None:
    match item.get("type", "message"):
        case "message" if item.get("role") == "assistant":
            _add_words(messages, item.get("content"))
        case "message":
            messages.append(_message(item))
        case "reasoning":
            _add_reasoning(messages, item)
        case "function_call" | "custom_tool_call":
            _add_call(messages, _call(item))
        case "function_call_output":
            _add_result(messages, text_in(item, "call_id"), item.get("output"))
        case "item_reference":
            expected = "that of a whole item: nothing is kept here to refer to"
            raise MalformedItemError(".type", expected)
        case str(kind):
            _add_other(messages, kind, item)
        case _:
            raise MalformedItemError(".type", "a text")


def _add_other(messages: list[Json], kind: str, item: Json) -> None:
    """Add what an item of another kind holds for a model, by its form: a session goes on with it.

    Notes of clients, and the work of tools that run on the server, hold nothing: its answer tells.
    """
    match item:
        case {"call_id": str(identity)} if kind.endswith("_call"):
            given = item.get("arguments")
            if not isinstance(given, dict):
                given = {name: item[name] for name in item if name not in ENVELOPE}
            _add_call(messages, _made_call(identity, kind.removesuffix("_call"), given))
        case {"call_id": str(identity), "tools": list(tools)}:
            found = [tool.get("name") for tool in tools if isinstance(tool, dict)]
            names = [name for name in found if isinstance(name, str)]
            _add_result(messages, identity, "\n".join(names))
        case {"call_id": str(identity)} if kind.endswith("_output"):
            _add_result(messages, identity, item.get("output"))
        case {"content": str() | list()}:
            messages.append(
                {"role": "user", "content": _content(item["content"], ".content")}
            )
        case {"encrypted_content": str()}:
            messages.append({"role": "user", "content": UNKNOWN_PART.format(kind=kind)})
        case _:
            pass


def _add_call(messages: list[Json], call: Json) -> None:
    _last_answer(messages).setdefault("tool_calls", []).append(call)


def _add_result(messages: list[Json], identity: str, output: Any) -> None:
    match output:
        case {"type": str()}:
            output = [output]
        case None | str():
            pass
        case list() if all(isinstance(part, dict) and "type" in part for part in output):
            pass
        case _:
            output = jsontext.encode(output)
    content = _content(output, ".output")
    messages.append({"role": "tool", "tool_call_id": identity, "content": content})


def _last_answer(messages: list[Json]) -> Json:
    """Return the message of the assistant at the end, which is made if there is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _add_words(messages: list[Json], content: Any) -> None:
    words = _content(content, ".content")
    answer = _last_answer(messages)
    if answer["content"] is not None or "tool_calls" in answer:
        messages.append({"role": "assistant", "content": words})
    else:
        answer["content"] = words


def _add_reasoning(messages: list[Json], item: Json) -> None:
    answer = _last_answer(messages)
    is_whole = answer["content"] is not None or "tool_calls" in answer
    answer = {"role": "assistant", "content": None}
    # Reasoning alone is of a turn that was interrupted: an answer has one item of it here.
    messages[len(messages) if is_whole else -1 :] = [answer]
    for name, value in unsealed(item.get("encrypted_content")).items():
        answer[name] = value
    if text := reasoning_text(item):
        answer[REASONING] = text


def _message(item: Json) -> Json:
    role = item.get("role")
    if role not in ROLES:
        raise MalformedItemError(".role", "user, assistant, system or developer")
    return {"role": role, "content": _content(item.get("content"), ".content")}


def _call(item: Json) -> Json:
    name, namespace = text_in(item, "name"), item.get("namespace")
    given: str | Json
    if item["type"] == "custom_tool_call":
        given = {FREE_INPUT: text_in(item, "input")}
    else:
        arguments = item.get("arguments")
        given = arguments if isinstance(arguments, dict) else text_in(item, "arguments")
    named = joined_name(namespace, name) if isinstance(namespace, str) else name
    return _made_call(text_in(item, "call_id"), named, given)


def _made_call(identity: str, name: str, given: str | Json) -> Json:
    text = given if isinstance(given, str) else jsontext.encode_arguments(given)
    function = {"name": name, "arguments": text}
    return {"id": identity, "type": "function", "function": function}


def free_input(arguments: str) -> str:
    """Return the text that a model has written for a tool of free text, whatever it is in."""
    try:
        read = jsontext.decode(arguments)
    except (ValueError, RecursionError):
        return arguments
    members = read if isinstance(read, dict) else {}
    # A model that overlooks the name of the one parameter invents another.
    alone = len(members) == 1
    said = next(iter(members.values())) if alone else members.get(FREE_INPUT)
    return said if isinstance(said, str) else arguments


def joined_name(namespace: str, name: str) -> str:
    """Return the one name that a function of a namespace has in chat completions."""
    return f"{namespace}__{name}"


def _content(content: Any, place: str) -> Any:
    """Return content as chat completions have it: a text where all of it is one."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(p, dict) for p in content):
        raise MalformedItemError(place, "a text, or a list of parts")
    return content_of([_part(part, f"{place}[{n}]") for n, part in enumerate(content)])


def _part(part: Json, place: str) -> Json:
    match part:
        case {"type": "refusal", "refusal": str(words)} | {
            "type": str(),
            "text": str(words),
        }:
            return {"type": "text", "text": words}
        case {"type": str(), "image_url": str(url)}:
            detail = {"detail": part["detail"]} if part.get("detail") in DETAILS else {}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case {"type": "input_image"} if not part.get("file_id"):
            raise MalformedItemError(f"{place}.image_url", "a URL")
        case {"type": str(kind)} if kind not in TEXTS:
            return unknown_part(kind)
        case {"type": str()}:
            raise MalformedItemError(place, "a part with a text")
        case _:
            raise MalformedItemError(f"{place}.type", "a text")


def reasoning_text(item: Json) -> str:
    """Return the words of an item of reasoning: its summary, else the reasoning itself."""
    for name in ("summary", "content"):
        parts = item.get(name)
        listed = parts if isinstance(parts, list) else []
        words = [part.get("text") for part in listed if isinstance(part, dict)]
        if text := SEAM.join(word for word in words if isinstance(word, str) and word):
            return text
    return ""


def answer_of(items: Sequence[Json], origin: str) -> Json:
    """Make one message of the items of an answer. Raise `MalformedItemError`.

    `origin` names the endpoint that signed its reasoning. Items of tools which run on the
    server are left out.
    """
    message: Json = {"role": "assistant", "content": None}
    words: list[str] = []
    for item in items:
        match item.get("type"):
            case "message":
                content = _content(item.get("content"), ".content")
                words.append(content if isinstance(content, str) else _plain(content))
            case "reasoning":
                if text := reasoning_text(item):
                    message[REASONING] = SEAM.join(
                        filter(None, (message.get(REASONING), text))
                    )
                if is_returnable(item):
                    message.setdefault(REASONING_ITEMS, []).append({**item, ORIGIN: origin})
            case "function_call":
                message.setdefault("tool_calls", []).append(_call(item))
            case _:
                pass
    if words or "tool_calls" not in message:
        message["content"] = "".join(words)
    return message


def _plain(parts: Sequence[Json]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")


def is_returnable(item: Json) -> bool:
    """Whether the server takes this reasoning back: it keeps none, and a summary is none."""
    return bool(item.get("encrypted_content") or item.get("content"))


# --- items from messages --------------------------------------------------------------------


def items_of(messages: Messages) -> list[Json]:
    """Make the items of a conversation, whose calls and results are paired by now."""
    return [item for message in messages for item in _items(message)]


def _items(message: Message) -> list[Json]:
    role, content = message.get("role"), message.get("content")
    if role == "assistant":
        return _answer_items(message)
    parts = [_input_part(part) for part in _parts(content)]
    if role == "tool":
        output = content if isinstance(content, str) else parts
        called = {"call_id": message.get("tool_call_id"), "output": output}
        return [{"type": "function_call_output", **called}]
    return [{"type": "message", "role": role, "content": parts}]


def _answer_items(message: Message) -> list[Json]:
    reasoning = [
        {name: value for name, value in item.items() if name != ORIGIN}
        for item in message.get(REASONING_ITEMS) or ()
    ]
    words = [
        {"type": "output_text", "text": part["text"]}
        for part in _parts(message.get("content"))
        if part.get("type") == "text" and part.get("text")
    ]
    calls = [
        {
            "type": "function_call",
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": call["function"]["arguments"],
        }
        for call in message.get("tool_calls") or ()
    ]
    said = [{"type": "message", "role": "assistant", "content": words}] if words else []
    # Reasoning alone is refused; it is of a turn that was interrupted.
    return [*reasoning, *said, *calls] if said or calls else []


def _parts(content: Any) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or ())


def _input_part(part: Mapping[str, Any]) -> Json:
    match part:
        case {"type": "text"}:
            return {"type": "input_text", "text": part.get("text") or ""}
        case {"type": "image_url", "image_url": {"url": url, **rest}}:
            detail = rest.get("detail")
            return {
                "type": "input_image",
                "image_url": url,
                "detail": detail if detail in DETAILS else "auto",
            }
        case {"type": "image_url", "image_url": url}:
            return {"type": "input_image", "image_url": url, "detail": "auto"}
        case _:
            words = UNKNOWN_PART.format(kind=part.get("type"))
            return {"type": "input_text", "text": words}
