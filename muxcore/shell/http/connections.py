"""Connections to one provider: kept alive, cancellable, with the environment read once.

`requests` sends through its `HTTPAdapter`. Two things differ from a `Session`:

- Proxy, CA and client-certificate settings of the environment are read when the endpoint is
  first used, not at every call: a third of a plain `Session.post` goes into that. `.netrc`
  is not read at all, as it would replace the key; redirects are not followed.
- Each connection attaches its socket to the scope of the attempt that it serves, before
  it connects, so that another thread can cancel it.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util.connection import allowed_gai_family

from muxcore.shell.http.cancel_scope import CancelScope
from muxcore.shell.http.fast_path import (
    FinalResponse,
    OutgoingRequest,
    Repeatable,
    RequestHead,
    Response,
    resend,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from urllib3 import BaseHTTPResponse

Address: TypeAlias = (
    "tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]"
)
"""One of the results of `socket.getaddrinfo`."""

_SEND = HTTPAdapter.send
"""Tests may replace it, as `responses` does; then the fast path must not bypass that."""


class _Current(threading.local):
    """The attempt that this thread is sending, its request and its limits."""

    scope: CancelScope
    request: OutgoingRequest
    connect: float
    silence: float


_current = _Current()


class _Cancellable(Repeatable):
    """A mixin for connections: attaches the socket to the scope of the current attempt."""

    _attached_to: CancelScope | None = None
    _unsent: list[bytes] | None = None
    response_class = FinalResponse

    def _new_conn(self) -> socket.socket:
        """Connect as urllib3 does, but within the attempt's time, and cancellable."""
        _current.scope.reused = False
        failure: OSError | None = None
        for family, kind, protocol, _, address in self._addresses():
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                self._attach(sock)
                sock.settimeout(_current.scope.timeout(_current.connect))
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
                if _current.scope.reason is not None:
                    break
            except BaseException:
                sock.close()
                raise
            else:
                # Also limits a TLS handshake and the response of a proxy.
                sock.settimeout(_current.scope.timeout(_current.connect))
                sys.audit("http.client.connect", self, self.host, self.port)
                return sock
        # `raise failure from failure` would be a cycle that only the collector frees.
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "not in time") from None
        reason = type(failure).__name__
        raise NewConnectionError(self, reason) from failure

    def _addresses(self) -> Sequence[Address]:
        host = self._dns_host.strip("[]")
        try:
            return socket.getaddrinfo(
                host, self.port, allowed_gai_family(), socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError:
            raise LocationParseError("a label of its name is empty or too long") from None

    def connect(self) -> None:
        super().connect()
        self._attach(self.sock)
        # The limit of a silence applies to sending too.
        self.sock.settimeout(_current.silence)

    def request(
        self, method: str, url: str, body: Any = None, headers: Any = None, **options: bool
    ) -> None:
        self.timeout = _current.silence
        if self.sock is not None:
            self._attach(self.sock)
        # Headers and body leave together: one system call and one packet instead of two.
        unsent: list[bytes] = []
        self._unsent = unsent
        try:
            super().request(method, url, body, headers, **options)
            self._unsent = None
            self._last_head = RequestHead(_current.request, unsent[0])
            self.send(b"".join(unsent))
        finally:
            self._unsent = None

    def prepare(self) -> None:
        self._attach(self.sock)
        self.sock.settimeout(_current.silence)

    def _attach(self, sock: socket.socket) -> None:
        """Move this socket from the scope of the last attempt to that of the current one."""
        if self._attached_to is not None and self._attached_to is not _current.scope:
            self._attached_to.detach_if(sock)
        self._attached_to = _current.scope
        self._attached_to.attach(sock)

    def send(self, data: Any) -> None:
        if self._unsent is None or not isinstance(data, bytes):
            super().send(data)
        else:
            self._unsent.append(data)


class _HTTPConnection(_Cancellable, HTTPConnection):
    pass


class _HTTPSConnection(_Cancellable, HTTPSConnection):
    pass


class _ThroughSocks(_Cancellable):
    """As `_Cancellable`, where urllib3's own connection reaches the server by a SOCKS proxy."""

    def _new_conn(self) -> socket.socket:
        _current.scope.reused = False
        self.timeout = _current.scope.timeout(_current.connect)
        # This class replaces what `_Cancellable` does here, and not what it extends.
        sock: socket.socket = super(_Cancellable, self)._new_conn()
        self._attach(sock)
        return sock


class _Idle:
    """The idle connections of a pool, in place of urllib3's queue.

    It uses no lock written in Python, so neither an interrupt nor a garbage collection which
    ends a stream leaves it locked. A connection over the limit is closed without a log message.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: deque[_Cancellable] = deque()

    def get(self, block: bool = True, timeout: float | None = None) -> _Cancellable:  # noqa: ARG002, FBT001, FBT002 - the queue's
        connection = self.newest()
        if connection is None:
            raise queue.Empty
        return connection

    def newest(self) -> _Cancellable | None:
        """Take the connection that was used last, or return None."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def put(self, connection: _Cancellable | None, block: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002
        # urllib3 fills its queue with None, to block where this raises `queue.Empty`.
        if connection is not None:
            self._idle.append(connection)
            if len(self._idle) > self._most:
                with suppress(IndexError):
                    self._idle.popleft().close()


class _HTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection
    QueueCls = _Idle  # type: ignore[assignment]


class _HTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
    QueueCls = _Idle  # type: ignore[assignment]


def _prepared(request: OutgoingRequest) -> requests.PreparedRequest:
    """Make the request as `requests` sends it, without the lookups of its `prepare`."""
    prepared = requests.PreparedRequest()
    prepared.method = "POST"
    prepared.url = request.url
    # Of two fields that differ only in case, the later counts.
    prepared.headers = CaseInsensitiveDict(request.headers)
    prepared.headers["Content-Length"] = str(len(request.body))
    prepared.body = request.body
    return prepared


_POOLS = {"http": _HTTPConnectionPool, "https": _HTTPSConnectionPool}


class _Adapter(HTTPAdapter):
    """The adapter of `requests`, for one host and one set of settings.

    So it looks up the connection pool and the target once, not at every call. It does not
    search responses for cookies, as none are kept.
    """

    _pool: HTTPConnectionPool | None = None
    _target: tuple[str, str] | None = None

    def __init__(self, size: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=size)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        if self._pool is None:
            made = super().get_connection_with_tls_context(*args, **options)
            self._pool = cast("HTTPConnectionPool", made)
        return self._pool

    def request_url(
        self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None
    ) -> str:
        url = request.url or ""
        if self._target is None or self._target[0] != url:
            self._target = (url, super().request_url(request, proxies))
        return self._target[1]

    def resend(self, request: OutgoingRequest) -> Response | None:
        """Send it on the fast path; return None if no idle connection can repeat it."""
        pool = self._pool
        if pool is None or pool.pool is None or pool.proxy or HTTPAdapter.send is not _SEND:
            return None
        idle = cast("_Idle", pool.pool)
        if not isinstance(request.body, bytes):
            return None
        connection = idle.newest()
        if connection is None:
            return None
        message = connection.repeated(request)
        if message is None:
            idle.put(connection)
            return None
        return resend(pool, connection, message)

    def build_response(
        self, req: requests.PreparedRequest, resp: BaseHTTPResponse
    ) -> requests.Response:
        response = requests.Response()
        response.status_code = resp.status
        response.headers = cast("CaseInsensitiveDict[str]", resp.headers)
        response.raw = resp
        response.url = req.url or ""
        response.request = req
        # It is kept with the response, and must not hold the key.
        req.headers.pop(_current.request.key_header, None)
        return response

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        is_socks = proxy.lower().startswith("socks")
        own = _through_socks(manager.pool_classes_by_scheme) if is_socks else _POOLS
        manager.pool_classes_by_scheme = own
        return manager


def _through_socks(pools: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make pools like these, whose connections can be cancelled. Only PySocks brings them."""
    return {
        scheme: type(
            pool.__name__,
            (pool,),
            {
                "ConnectionCls": type(
                    "_SocksConnection", (_ThroughSocks, pool.ConnectionCls), {}
                ),
                "QueueCls": _Idle,
            },
        )
        for scheme, pool in pools.items()
    }


class Sender(Protocol):
    """What sends the requests of one endpoint: its connections, or a wrapping of them."""

    def send(
        self,
        request: OutgoingRequest,
        timeout: tuple[float, float],
        scope: CancelScope,
    ) -> Response:
        """Send it and return the response with its body unread.

        Raise what requests or urllib3 raises.
        """
        ...

    def close(self) -> None: ...


class Connections:
    """The connections to one endpoint's host. Shared by threads."""

    def __init__(self, url: str, size: int, *, loopback: bool) -> None:
        self._adapter = _Adapter(size)
        with requests.Session() as session:
            settings = session.merge_environment_settings(
                url, proxies={}, stream=True, verify=None, cert=None
            )
        # Traffic to this machine never goes through a proxy.
        self._proxies: Mapping[str, str] = {} if loopback else settings["proxies"]
        self._verify = True if settings["verify"] is None else settings["verify"]
        self._cert = settings["cert"]

    def send(
        self,
        request: OutgoingRequest,
        timeout: tuple[float, float],
        scope: CancelScope,
    ) -> Response:
        _current.scope, _current.request = scope, request
        _current.connect, _current.silence = timeout
        # Set to False when a new connection is made.
        scope.reused = True
        try:
            return self._adapter.resend(request) or self._adapter.send(
                _prepared(request),
                stream=True,
                timeout=timeout,
                verify=self._verify,
                cert=self._cert,
                proxies=self._proxies,
            )
        finally:
            del _current.scope, _current.request

    def close(self) -> None:
        self._adapter.close()
