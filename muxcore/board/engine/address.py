"""From the URL of a Redis to a client: one server, a cluster, or servers behind sentinels.

The URL may hold a password. No error repeats any part of it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from muxcore.config.addresses import SENTINEL_PORT, redis_fault
from muxcore.plugins.board import BoardGoneError


@frozen
class RedisAddress:
    """Where a Redis is. `secrets` are the parts that no text may show."""

    url: str
    secrets: tuple[str, ...]

    def masked(self, text: str) -> str:
        """Return the text without the parts that no text may show."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def client(self, seconds: float) -> Any:
        """Return a client which waits for each answer so long, and repeats nothing."""
        options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "protocol": 2,
        }
        parts = urlsplit(self.url)
        scheme, _, kind = parts.scheme.partition("+")
        plain = parts._replace(scheme=scheme)
        if kind == "cluster":
            return RedisCluster.from_url(plain.geturl(), **options)
        if kind != "sentinel":
            return Redis.from_url(plain.geturl(), **options)
        query = dict(parse_qsl(parts.query))
        service = query.pop("service")
        about = {
            name: query.pop(f"sentinel_{name}")
            for name in ("username", "password")
            if f"sentinel_{name}" in query
        }
        login, _, hosts = parts.netloc.rpartition("@")
        netloc = f"{login}@localhost" if login else "localhost"
        for_redis = plain._replace(netloc=netloc, query=urlencode(query)).geturl()
        options |= {"ssl": True} if scheme == "rediss" else {}
        sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types here
            [_host_and_port(host) for host in hosts.split(",")],
            sentinel_kwargs={**options, **about},
        )
        known = parse_url(for_redis)  # type: ignore[no-untyped-call]  # as above
        left_out = {"host", "port", "connection_class"}
        kept = {name: known[name] for name in known if name not in left_out}
        return sentinels.master_for(  # type: ignore[no-untyped-call]  # as above
            service, **{**kept, **options}
        )


def read_address(url: str) -> RedisAddress:
    """Return the address. Raise `BoardGoneError`, which shows nothing of it."""
    if fault := redis_fault(url):
        raise BoardGoneError(f"the URL of the Redis {fault}")
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    passwords = [v for name, v in parse_qsl(parts.query) if "password" in name]
    found = {url, login, *login.split(":"), *passwords, parts.query}
    return RedisAddress(url, tuple(sorted(filter(None, found), key=len, reverse=True)))


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or SENTINEL_PORT
