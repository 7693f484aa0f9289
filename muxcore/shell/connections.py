"""Connections to one provider: kept alive, cuttable, and with the environment read once.

`requests` sends through its `HTTPAdapter`. Two things differ from a `Session`:

- Proxy, CA and client-certificate settings of the environment are read when the endpoint is
  first used, not at every call: a third of a plain `Session.post` goes into that. `.netrc`
  is not read at all, as it would replace the key; redirects are not followed.
- Each connection hands its socket to the `Cut` of the attempt that it serves, so that
  another thread can end it.
"""

from __future__ import annotations

import threading
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from muxcore.shell.cutting import Cut


class _Current(threading.local):
    cut: Cut | None = None


_current = _Current()


class _Cuttable:
    """Mixed into a connection: hands its socket to the attempt at hand."""

    sock: Any

    def _new_conn(self) -> Any:
        sock = super()._new_conn()  # type: ignore[misc]
        if _current.cut is not None:
            # Before the TLS handshake, which a hostile server could draw out.
            _current.cut.hold(sock)
        return sock

    _unsent: list[bytes] | None = None

    def request(self, *args: Any, **options: Any) -> None:
        cut = _current.cut
        if cut is not None:
            cut.reused = self.sock is not None
            cut.hold(self.sock)
        # Headers and body leave together: one system call and one packet instead of two.
        self._unsent = []
        try:
            super().request(*args, **options)  # type: ignore[misc]
            unsent, self._unsent = self._unsent, None
            self.send(b"".join(unsent))
        finally:
            self._unsent = None
        if cut is not None:
            cut.hold(self.sock)

    def send(self, data: Any) -> None:
        if self._unsent is None or not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]
        else:
            self._unsent.append(data)


class _HTTPConnection(_Cuttable, HTTPConnection):
    pass


class _HTTPSConnection(_Cuttable, HTTPSConnection):
    pass


class _HTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPConnectionPool, "https": _HTTPSConnectionPool}


class _Adapter(HTTPAdapter):
    """`requests`' own adapter, less what it works out anew at every call.

    It serves one host, with one set of settings: the connection pool and the target are
    looked up once. Cookies are not kept, so answers are not searched for any.
    """

    _pool: Any = None
    _target: tuple[str, str] | None = None

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **options)
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        url = request.url or ""
        if self._target is None or self._target[0] != url:
            self._target = (url, super().request_url(request, proxies))
        return self._target[1]

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw = resp
        response.url = req.url or ""
        response.request = req
        return response

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class Connections:
    """The connections to one endpoint's host. Shared by threads."""

    def __init__(self, url: str, size: int, *, loopback: bool) -> None:
        self._adapter = _Adapter(pool_connections=1, pool_maxsize=size)
        with requests.Session() as session:
            # Traffic to this machine never leaves it: not through a proxy either.
            session.trust_env = not loopback
            settings = session.merge_environment_settings(
                url, proxies={}, stream=True, verify=None, cert=None
            )
        self._settings: dict[str, Any] = {
            "proxies": settings["proxies"],
            "verify": settings["verify"],
            "cert": settings["cert"],
        }

    def send(
        self,
        request: requests.PreparedRequest,
        timeout: tuple[float, float],
        cut: Cut,
    ) -> requests.Response:
        """Send it and return the answer with its body unread. Raise what requests raises."""
        _current.cut = cut
        try:
            return self._adapter.send(
                request, stream=True, timeout=timeout, **self._settings
            )
        finally:
            _current.cut = None

    def close(self) -> None:
        self._adapter.close()
