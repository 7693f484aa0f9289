"""The stand-ins' server: OpenAI-compatible HTTP on loopback, many models at one port."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from http import HTTPStatus
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self, cast, final

from muxcore.chat import Json
from muxcore.standin.clock import monotonic
from muxcore.standin.connection import ClientConnection
from muxcore.standin.model import Model, Visit
from muxcore.standin.player import play_visit
from muxcore.standin.render import CREATED
from muxcore.standin.script import Behaviour, Received, StatusAnswer, refusal
from muxcore.standin.wire import Request, Unreadable, read_request

LOOPBACK = "127.0.0.1"
PAUSE_SECONDS = 0.01
_PATH = re.compile(r"(?:/(?P<provider>[^/]+))?/v1/(?P<what>chat/completions|models)")
_NOT_FOUND = refusal(HTTPStatus.NOT_FOUND, "There is nothing here", code="not_found")
_NO_MODEL = refusal(
    HTTPStatus.BAD_REQUEST, "The body is not a JSON object that names a model"
)
_UNAUTHORIZED = refusal(
    HTTPStatus.UNAUTHORIZED,
    "Incorrect API key provided",
    kind="authentication_error",
    code="invalid_api_key",
)


@final
class StandInServer:
    """Serves from `start` to `stop`, or as a context manager.

    `stop` ends the requests under way, and returns when all threads and sockets are closed.
    """

    def __init__(
        self, models: Iterable[Model] = (), *, token: str | None = None, port: int = 0
    ) -> None:
        self._models: dict[tuple[str, str], Model] = {}
        for model in models:
            self.add(model)
        self._token = token
        self._others = Model("")
        self._lock = Lock()
        self._is_stopping = False
        self._serving: list[tuple[Thread, ClientConnection]] = []
        self._accepting = Thread(target=self._accept, name="stand-ins", daemon=True)
        self._listener = socket.create_server((LOOPBACK, port))
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """The base URL of the models without a provider."""
        return self.url_of("")

    @property
    def other_requests(self) -> tuple[Received, ...]:
        """Requests that no model received: lists of models, unknown names and paths, bad HTTP."""
        return self._others.requests

    def url_of(self, provider: str) -> str:
        path = f"/{provider}/v1" if provider else "/v1"
        return f"http://{LOOPBACK}:{self.port}{path}"

    def add(self, model: Model) -> None:
        key = (model.provider, model.name)
        if key in self._models:
            raise ValueError(f"there is a stand-in {model.label!r} already")
        self._models[key] = model

    def start(self) -> None:
        self._accepting.start()

    def stop(self) -> None:
        with self._lock:
            was_stopping, self._is_stopping = self._is_stopping, True
            serving = tuple(self._serving)
        if was_stopping:
            return
        if self._accepting.is_alive():
            # Only a new connection wakes the thread on every platform.
            with socket.create_connection((LOOPBACK, self.port)):
                self._accepting.join()
        self._listener.close()
        for _, connection in serving:
            connection.stop()
        for thread, _ in serving:
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        number, pause = 0, Event()
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                # Out of descriptors, as the process under test may be: they come back with time.
                pause.wait(PAUSE_SECONDS)
                continue
            with self._lock:
                if self._is_stopping:
                    peer.close()
                    return
                connection = ClientConnection(peer, number)
                thread = Thread(
                    target=self._serve,
                    args=(connection,),
                    name=f"stand-in connection {number}",
                    daemon=True,
                )
                # Ended threads are removed only here, so that `stop` joins all that may still run.
                self._serving = [each for each in self._serving if each[0].is_alive()]
                thread.start()
                self._serving.append((thread, connection))
            number += 1

    def _serve(self, connection: ClientConnection) -> None:
        try:
            while self._serve_one(connection):
                pass
        finally:
            connection.close()

    def _serve_one(self, connection: ClientConnection) -> bool:
        request = read_request(connection.reader)
        if request is None:
            return False
        if isinstance(request, Unreadable):
            received = Received("", "", {}, {}, monotonic(), connection.number)
            visit = self._others.arrive(
                received, refusal(HTTPStatus.BAD_REQUEST, request.reason)
            )
            return play_visit(visit, connection, keeps_alive=False, may_chunk=False)
        return play_visit(
            self._arrive(request, connection),
            connection,
            keeps_alive=request.keeps_alive,
            may_chunk=request.is_modern,
        )

    def _arrive(self, request: Request, connection: ClientConnection) -> Visit:
        received = Received(
            request.method,
            request.path.partition("?")[0],
            request.headers,
            _parse(request.body),
            monotonic(),
            connection.number,
        )
        model, instead = self._route(received)
        if self._token is not None:
            offered = received.headers.get("authorization")
            if offered != f"Bearer {self._token}":
                instead = _UNAUTHORIZED
        return model.arrive(received, instead)

    def _route(self, received: Received) -> tuple[Model, Behaviour | None]:
        found = _PATH.fullmatch(received.path)
        if found is None:
            return self._others, _NOT_FOUND
        provider = found["provider"] or ""
        match received.method, found["what"], received.body.get("model"):
            case "GET", "models", _:
                return self._others, self._list(provider)
            case "POST", "chat/completions", str(name):
                model = self._models.get((provider, name))
                return (model, None) if model else (self._others, _unknown(name))
            case "POST", "chat/completions", _:
                return self._others, _NO_MODEL
            case _:
                return self._others, _NOT_FOUND

    def _list(self, provider: str) -> StatusAnswer:
        models = [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "stand-in"}
            for owner, name in tuple(self._models)
            if owner == provider
        ]
        return StatusAnswer(HTTPStatus.OK, {"object": "list", "data": models})


@contextmanager
def dead_port() -> Generator[str]:
    """Yield a base URL that refuses connections as long as the block runs.

    The port is bound but never listened on, so no other program can take it.
    """
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        yield f"http://{LOOPBACK}:{holder.getsockname()[1]}/v1"


def _parse(data: bytes) -> Json:
    try:
        body = json.loads(data)
    except ValueError:
        return {}
    return cast("Json", body) if isinstance(body, dict) else {}


def _unknown(name: str) -> StatusAnswer:
    message = f"The model `{name}` does not exist or you do not have access to it."
    return refusal(HTTPStatus.NOT_FOUND, message, code="model_not_found")
