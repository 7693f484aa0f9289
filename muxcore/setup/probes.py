"""Probing each model of a pool with tiny calls, all models at once.

The calls run through the same code as those of vibe, but with one attempt each, so that a
failure shows instead of causing a failover.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from muxcore.chat import Json
from muxcore.config import Config
from muxcore.config.addresses import is_loopback
from muxcore.core.outcomes import Fault, Limit
from muxcore.core.records import Endpoint
from muxcore.errors import CallError
from muxcore.setup.model_servers import list_at, models_at, served_model
from muxcore.shell.call.multiplexer import Multiplexer
from muxcore.shell.factory import parts_of
from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.connections import Sender
from muxcore.shell.http.fast_path import OutgoingRequest, Response
from muxcore.text import printable

LONGEST = 90.0
"""Seconds for one call: a local server may have to load the model first."""

PATIENCE = (5.0, 10.0)
"""Seconds to connect to a server, and for its list of models."""

PAUSES = (2.0, 5.0)
"""Seconds before a retry after a rate limit: some accounts allow one call a second."""

TOOL: Json = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up in the dictionary.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": ["word"],
        },
    },
}
ENOUGH_TOKENS = 64
"""For the answer of a model on this machine: a talkative one would fill its context, and the
verdict would be wrong. Clouds are asked without a limit, which some of them refuse."""
PING: Json = {"role": "user", "content": "Reply with this one word: pong"}
ASK: Json = {
    "role": "user",
    "content": "Use the tool to look up the word pong. Then reply with one word.",
}

_LIMIT_HEADER = re.compile(
    r"(?:x-)?(?:[a-z]+-)?ratelimit(?P<size>bysize)?-(?P<kind>limit|remaining)-?(?P<what>.*)"
    r"|(?:x-)?(?:[a-z]+-)?ratelimit-(?P<what_first>.+)-(?P<kind_last>limit|remaining)"
)

Pause: TypeAlias = Callable[[float], object]
Look: TypeAlias = Callable[[Mapping[str, str]], None]


class Progress(Protocol):
    """What watches the probes, from several threads."""

    def called(self) -> None:
        """Note that one call has ended, of any model."""

    def ended(self, alias: str) -> None:
        """Note that the probe of one model has ended."""


class Check(StrEnum):
    """What is checked, in this order."""

    KEY = "key"
    NAME = "name"
    ANSWER = "answer"
    STREAM = "stream"
    TOOLS = "tools"


class ProbeResult(StrEnum):
    OK = "ok"
    FAILED = "FAILED"
    LIMITED = "LIMITED"
    UNTRIED = "-"
    NOT_NEEDED = "none"


@frozen
class Report:
    """The results for one model. `faults` has a text for each failed check, with advice."""

    endpoint: Endpoint
    results: Mapping[Check, ProbeResult]
    faults: tuple[str, ...] = ()
    limits: Mapping[str, str] = field(factory=dict[str, str])

    @property
    def is_well(self) -> bool:
        return not self.faults


def probe_all(
    config: Config,
    environment: Mapping[str, str] | None,
    progress: Progress,
    pause: Pause | None = None,
) -> tuple[Report, ...]:
    """Probe every model of the pool, in parallel."""
    interrupted = threading.Event()
    pause = pause or interrupted.wait
    probes = [
        _Probe(config, endpoint, environment, progress, pause)
        for endpoint in config.endpoints
    ]
    with ThreadPoolExecutor(len(probes)) as threads:
        running = [threads.submit(probe.run) for probe in probes]
        try:
            return tuple(report.result() for report in running)
        except BaseException:
            # The executor waits for its threads: end their calls, so that one Ctrl-C is enough.
            interrupted.set()
            for probe in probes:
                probe.close()
            raise


class _FoundError(Exception):
    """Ends a probe at the check that failed."""

    def __init__(self, check: Check, result: ProbeResult, text: str) -> None:
        self.check, self.result, self.text = check, result, text
        super().__init__(text)


class _Probe:
    """The probe of one model."""

    def __init__(
        self,
        config: Config,
        endpoint: Endpoint,
        environment: Mapping[str, str] | None,
        progress: Progress,
        pause: Pause,
    ) -> None:
        self._endpoint = endpoint
        self._progress = progress
        self._pause = pause
        self._limits: dict[str, str] = {}
        alone = evolve(
            config,
            endpoints=(endpoint,),
            policy=evolve(config.policy, direct=True),
        )
        wrapping = {endpoint.alias: lambda inner: _ObservedSender(inner, self._look)}
        parts = parts_of(alone, environment, wrapping)
        self._multiplexer = Multiplexer(parts)

    def close(self) -> None:
        """End a call that is under way, from another thread."""
        self._multiplexer.close()

    def run(self) -> Report:
        try:
            return self._run()
        finally:
            self._progress.ended(self._endpoint.alias)

    def _run(self) -> Report:
        results = dict.fromkeys(Check, ProbeResult.UNTRIED)
        if not self._endpoint.wire.key_variable:
            results[Check.KEY] = ProbeResult.NOT_NEEDED
        faults: list[str] = []
        with self._multiplexer:
            try:
                self._answer()
                _pass(results, Check.KEY, Check.NAME, Check.ANSWER)
            except _FoundError as found:
                if found.check in {Check.NAME, Check.ANSWER} and found.result is not (
                    ProbeResult.UNTRIED
                ):
                    _pass(results, *_proven_by(found))
                results[found.check] = found.result
                faults.append(found.text)
                return Report(self._endpoint, results, tuple(faults), self._limits)
            for check, probe in ((Check.STREAM, self._stream), (Check.TOOLS, self._tools)):
                try:
                    probe()
                    _pass(results, check)
                except _FoundError as found:
                    results[check] = found.result
                    faults.append(found.text)
        if self._is_local:
            faults += self._faults_by_the_list()
        return Report(self._endpoint, results, tuple(faults), self._limits)

    @property
    def _is_local(self) -> bool:
        return is_loopback(self._endpoint.wire.api_base)

    def _answer(self) -> None:
        self._ask(Check.ANSWER, [PING], max_tokens=self._tokens)

    @property
    def _tokens(self) -> int | None:
        return ENOUGH_TOKENS if self._is_local else None

    def _faults_by_the_list(self) -> list[str]:
        """Compare the config with what a server on this machine says of the model."""
        endpoint, faults = self._endpoint, []
        listed = list_at(endpoint.wire.api_base, PATIENCE)
        served = served_model(listed, endpoint.model)
        window, configured = served.context_window, endpoint.context_window
        if window is not None:
            self._limits["context window"] = f"{window} tokens"
            if configured is not None and configured > window:
                faults.append(
                    f"context window: the server reads {window} tokens, and the config says"
                    f" {configured}; write context_window = {window} in its pool entry, or"
                    " start the server with a larger context"
                )
        if served.takes_images is not None:
            self._limits["images"] = "yes" if served.takes_images else "no"
            if endpoint.wire.supports_images and not served.takes_images:
                faults.append(
                    "images: the server takes none, and the config says that the model does;"
                    " remove supports_images, or start the server with the model's projector"
                )
        return faults

    def _stream(self) -> None:
        self._asked(Check.STREAM, self._read_stream)

    def _tools(self) -> None:
        reply = self._ask(Check.TOOLS, [ASK], tools=[TOOL])
        if not reply.tool_calls:
            raise self._found(
                Check.TOOLS,
                "it answered without calling the tool",
                "an agent needs a model that calls tools; on a server of your own, check"
                " that it was started with its tool parser or chat template",
            )
        results = [
            {
                "role": "tool",
                "tool_call_id": call["id"],
                "name": call["function"]["name"],
                "content": "a game",
            }
            for call in reply.tool_calls
        ]
        answer = {"role": "assistant", **reply.message}
        self._ask(Check.TOOLS, [ASK, answer, *results], tools=[TOOL])

    def _ask(self, check: Check, messages: list[Json], **options: Any) -> Any:
        return self._asked(
            check,
            lambda: self._multiplexer.complete(messages, timeout=LONGEST, **options),
        )

    def _read_stream(self) -> None:
        with self._multiplexer.stream(
            [PING], timeout=LONGEST, max_tokens=self._tokens
        ) as stream:
            for _ in stream:
                pass

    def _asked(self, check: Check, call: Callable[[], Any]) -> Any:
        pauses = iter(PAUSES)
        while True:
            try:
                return call()
            except CallError as error:
                limited = bool(error.attempts) and error.attempts[-1].outcome == Limit.RATE
                pause = next(pauses, None) if limited else None
                if pause is None:
                    raise self._judged(check, error) from None
            finally:
                self._progress.called()
            self._pause(pause)

    def _judged(self, check: Check, error: CallError) -> _FoundError:
        """Return which check failed, with advice."""
        last = error.attempts[-1] if error.attempts else None
        outcome = last.outcome if last is not None else ""
        text = (last.message if last is not None else "") or str(error)
        provider, variable = self._endpoint.provider, self._endpoint.wire.key_variable
        match outcome:
            case Fault.AUTH:
                advice = f"get a new key from {provider}"
                advice += f" and set {variable}" if variable else " and name its variable"
                return self._found(Check.KEY, text, advice)
            case Fault.NOT_FOUND:
                return self._found(Check.NAME, text, self._advice_on_name())
            case Fault.UNPAID | Limit.QUOTA | Limit.BUDGET:
                return self._found(
                    check, text, f"look at your plan with {provider}", ProbeResult.LIMITED
                )
            case Limit.RATE:
                advice = "it is limited now: try again later; in a pool, others take over"
                return self._found(check, text, advice, ProbeResult.LIMITED)
            case _:
                return self._found(check, text, self._advice(check))

    def _advice_on_name(self) -> str:
        """Return advice on a 404: no such model, or no such address."""
        name, base = self._endpoint.model, self._endpoint.wire.api_base
        listed = models_at(base, PATIENCE)
        if listed is None or listed.status_code != HTTPStatus.NOT_FOUND:
            return f'correct name = "{name}" of this model; {base}/models lists them'
        if urlsplit(base).path.strip("/"):
            return (
                f'correct api_base = "{base}" of its provider: nothing is at {base}/models'
            )
        return f'write api_base = "{base}/v1" for its provider: nothing is at {base}/models'

    def _advice(self, check: Check) -> str:
        base = self._endpoint.wire.api_base
        if check is Check.STREAM:
            return "vibe only streams: this server cannot serve it as it is"
        if check is Check.TOOLS:
            return "vibe needs tools: see this server's documents for how to enable them"
        if is_loopback(base):
            return f"start the server at {base}, or correct its api_base"
        return f"check {base} in the config, your network, and the provider's status page"

    def _found(
        self, check: Check, text: str, advice: str, result: ProbeResult = ProbeResult.FAILED
    ) -> _FoundError:
        text = f"{check}: {text}; {advice}" if advice else f"{check}: {text}"
        return _FoundError(check, result, printable(text))

    def _look(self, headers: Mapping[str, str]) -> None:
        self._limits.update(announced(headers))


def announced(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the limits that response headers announce, by what they count."""
    found: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        if match := _LIMIT_HEADER.fullmatch(name.lower()):
            what = (
                match["what"]
                or match["what_first"]
                or ("size" if match["size"] else "calls")
            )
            kind = match["kind"] or match["kind_last"]
            found.setdefault(what.replace("-", " "), {})[kind] = printable(value)
    return {
        what: f"{kinds.get('remaining', '?')} of {kinds.get('limit', '?')} left"
        for what, kinds in sorted(found.items())
    }


def _proven_by(found: _FoundError) -> tuple[Check, ...]:
    """Return the checks that a failure proves to have passed."""
    if found.check is Check.NAME:
        return (Check.KEY,)
    if found.result is ProbeResult.LIMITED:
        return (Check.KEY, Check.NAME)
    return ()


def _pass(results: dict[Check, ProbeResult], *checks: Check) -> None:
    for check in checks:
        if results[check] is not ProbeResult.NOT_NEEDED:
            results[check] = ProbeResult.OK


class _ObservedSender:
    """Sends by `inner`, and passes the headers of each response to `look`."""

    def __init__(self, inner: Sender, look: Look) -> None:
        self._inner = inner
        self._look = look

    def send(
        self,
        request: OutgoingRequest,
        timeout: tuple[float, float],
        scope: CancelScope,
    ) -> Response:
        response = self._inner.send(request, timeout, scope)
        self._look(response.headers)
        return response

    def close(self) -> None:
        self._inner.close()
