"""Bring tool calls, whole or in fragments, into OpenAI's shape."""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field

from muxcore import jsontext
from muxcore.chat import Json
from muxcore_backends.shapes import MalformedError

LONGEST_ID_TAIL = 24
"""OpenAI refuses ids of more than 40 characters."""
NAMELESS = "a tool call names no function"


def complete_tool_calls(calls: Any, completion: object) -> None:
    """Fill in missing members of the tool calls of a whole message; give each its own id."""
    ids: set[str] = set()
    for call in _objects(calls):
        call["function"] = function_of(call)
    named = [call for call in calls if call["function"].get("name")]
    if not named or any(c["function"]["arguments"] for c in calls if c not in named):
        raise MalformedError(NAMELESS)
    # Some servers end with a call of nothing.
    calls[:] = named
    for position, call in enumerate(calls):
        call["id"] = _own_id(call.get("id"), ids, completion, position)
        call["type"] = call.get("type") or "function"
        ids.add(call["id"])


def function_of(call: Json) -> Json:
    """Return a tool call's function, with its arguments as text; make text of the call's id."""
    function = call.get("function")
    if function is None:
        # Some servers leave this level out.
        function = {n: call.pop(n) for n in ("name", "arguments") if n in call}
    if not isinstance(function, dict):
        raise MalformedError("a tool call's function is no object")
    name, arguments = function.get("name"), function.get("arguments")
    if name is not None and not isinstance(name, str):
        raise MalformedError("a tool call's function name is no text")
    if arguments is None:
        function["arguments"] = ""
    elif isinstance(arguments, dict):
        # Some servers send the object itself where the text of it is due.
        function["arguments"] = jsontext.encode_arguments(arguments)
    elif not isinstance(arguments, str):
        raise MalformedError("a tool call's arguments are no text")
    identity = call.get("id")
    if type(identity) is int:
        call["id"] = str(identity)
    elif identity is not None and not isinstance(identity, str):
        raise MalformedError("a tool call's id is no text")
    return function


def made_up_id(completion: object, position: int) -> str:
    """Make an id for a tool call without one, out of the completion's own to be new."""
    tail = re.sub(r"[^A-Za-z0-9]", "", completion) if isinstance(completion, str) else ""
    return f"call_{position}_{tail[-LONGEST_ID_TAIL:]}"


def _objects(calls: object) -> list[Json]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise MalformedError("the tool calls are no list of objects")
    return calls


def _own_id(said: str | None, taken: set[str], completion: object, position: int) -> str:
    """Return the server's id for a call unless another call of the answer has it."""
    identity = said or made_up_id(completion, position)
    while identity in taken:
        identity = made_up_id(completion, position)
        position += 1
    return identity


@define(eq=False)
class _AssembledCall:
    """A call under way: its index for the caller, the server's id and name, the arguments."""

    position: int
    said: str
    name: str
    pieces: list[str] = field(factory=list)
    held: Json | None = None
    """Its first fragment, until the name has come."""

    def is_whole(self) -> bool:
        """Whether the arguments are one JSON object, so that nothing can follow."""
        if not (self.pieces and self.pieces[-1].rstrip().endswith("}")):
            return False
        try:
            return isinstance(jsontext.decode("".join(self.pieces)), dict)
        except (ValueError, RecursionError):
            return False

    def is_continued(self, arguments: str) -> bool:
        """Whether more arguments can be of this call."""
        # Few pieces begin so: the arguments are not read at each one.
        return not (arguments.lstrip().startswith("{") and self.is_whole())

    def is_repeated(self, said: str, name: str, arguments: str) -> bool:
        """Whether the server sends the whole call again, at its end for example."""
        is_same = said == self.said if said else not name
        return is_same and name in {"", self.name} and arguments == "".join(self.pieces)


class FragmentJoint:
    """Puts the tool-call fragments of one stream into OpenAI's order.

    There, a call's first fragment has its id and name, later ones have neither, and all
    fragments of one call, and of no other, share an index. The later ones have an empty name:
    Mistral's client takes no fragment without one, and OpenAI's joins the names. What comes of a
    call before its name is held back, as clients know a call by its first fragment.

    Servers give parallel calls one index, one id, or none. So another name begins another
    call, and so do arguments after arguments that are whole.
    """

    __slots__ = ("_by_id", "_by_index", "_calls", "_ids")

    def __init__(self) -> None:
        self._calls: list[_AssembledCall] = []
        self._by_index: dict[int, _AssembledCall] = {}
        self._by_id: dict[str, _AssembledCall] = {}
        """The latest call that has the server's id."""
        self._ids: set[str] = set()

    def put(self, calls: object, completion: object) -> list[Json]:
        """Return the fragments as the caller is to see them."""
        put = (self._put(call, completion) for call in _objects(calls))
        return [fragment for fragment in put if fragment is not None]

    @property
    def begun(self) -> bool:
        """Whether any call has come."""
        return any(call.name for call in self._calls)

    def finish(self) -> None:
        """Raise `MalformedError` if a call has got no name; one of nothing, beside others, may."""
        nameless = [call for call in self._calls if not call.name]
        if any(call.pieces for call in nameless) or (nameless and not self.begun):
            raise MalformedError(NAMELESS)

    def _put(self, raw: Json, completion: object) -> Json | None:
        function = function_of(raw)
        said, name = raw.pop("id", None) or "", function.pop("name", None) or ""
        kind, index = raw.pop("type", None), raw.get("index")
        call = self._known(index, said)
        if call is not None and not call.is_continued(function["arguments"]):
            if call.is_repeated(said, name, function["arguments"]):
                function["arguments"] = ""
            else:
                name, call = name or call.name, None
        begins = call is None or _is_another(call, said, name)
        if call is None or begins:
            call = _AssembledCall(len(self._calls), said, "")
            self._calls.append(call)
        if type(index) is int:
            self._by_index[index] = call
        if said:
            self._by_id[said] = call
        fragment: Json = {**raw, "index": call.position, "function": function}
        if begins:
            fragment["id"] = _own_id(said, self._ids, completion, call.position)
            fragment["type"] = kind or "function"
            self._ids.add(fragment["id"])
        if function["arguments"]:
            call.pieces.append(function["arguments"])
        fragment["function"] = {"name": "" if call.name else name, **function}
        call.name = call.name or name
        if not call.name:
            call.held = call.held or fragment
            return None
        if call.held is not None:
            function["arguments"] = "".join(call.pieces)
            named = {"name": call.name, **function}
            fragment, call.held = {**call.held, **fragment, "function": named}, None
        return fragment

    def _known(self, index: object, said: str) -> _AssembledCall | None:
        """Return the call that a fragment is of, unless it begins another one."""
        if type(index) is not int:
            return self._by_id.get(said) or (self._calls[-1] if self._calls else None)
        call = self._by_index.get(index)
        if call is None or call.said == said:
            return call
        return self._by_id.get(said, call)


def _is_another(call: _AssembledCall, said: str, name: str) -> bool:
    """Whether a fragment with this id and name begins another call than this one."""
    if name and call.name and name != call.name:
        return True
    # Gemini gives all parallel calls the index 0, each with an id and a name; older vLLM
    # gives every fragment of one call its own id, but only the first one a name.
    return bool(name and said and call.said and said != call.said)
