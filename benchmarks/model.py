"""The model of all contenders: a server on loopback, in its own process.

It does almost no work for an answer, so that the client is measured. The path selects the
answer: `/answer`, `/refused` (503), `/stream/COUNT` (in HTTP chunks, as fast as possible) and
`/slow/COUNT/MILLISECONDS` (without chunks: events with pauses between them, each with the
moment at which it was sent). `/served` is the answer, or such a stream of eight events if the
request asks for a stream. `/chat/completions` follows each path.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

ANSWER = {
    "id": "chatcmpl-benchmark",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "bench-model",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The tests pass now. " * 10},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 120, "completion_tokens": 60, "total_tokens": 180},
}
REFUSAL = {"error": {"message": "overloaded", "type": "server_error", "code": None}}
LONGEST_HEAD = 65536


def chunk_of(content: str, finish_reason: str | None = None) -> bytes:
    """Return the JSON of one chunk, as servers write it."""
    chunk = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "bench-model",
        "choices": [
            {
                "index": 0,
                "delta": {} if finish_reason else {"content": content},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
    }
    return json.dumps(chunk, separators=(",", ":")).encode()


def _whole(status: str, body: object) -> bytes:
    data = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"HTTP/1.1 {status}\r\nServer: benchmark\r\nDate: Mon, 05 Oct 2026 12:00:00 GMT\r\n"
        "Content-Type: application/json\r\nX-Request-Id: 0123456789abcdef\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


_ANSWER = _whole("200 OK", ANSWER)
_REFUSAL = _whole("503 Service Unavailable", REFUSAL)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: benchmark\r\nDate: Mon, 05 Oct 2026 12:00:00 GMT\r\n"
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
)
_EVENT = b"data: " + chunk_of(" word") + b"\n\n"
_LAST = b"data: " + chunk_of("", "stop") + b"\n\n"
_DONE = b"data: [DONE]\n\n"


def _in_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _stream(count: int) -> bytes:
    events = _in_chunk(_EVENT) * count + _in_chunk(_LAST) + _in_chunk(_DONE)
    return _STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + events + b"0\r\n\r\n"


def _slow(count: int, milliseconds: int) -> Iterator[bytes]:
    yield _STREAM_HEAD + b"Connection: close\r\n\r\n"
    for _ in range(count):
        yield b"data: " + chunk_of(str(time.monotonic_ns())) + b"\n\n"
        time.sleep(milliseconds / 1000)  # noqa: TID251 - the delay of a model
    yield _LAST + _DONE


def _answers(path: str, body: bytes) -> Iterator[bytes]:
    match path.strip("/").split("/"):
        case ["served", *_] if b'"stream"' in body:
            yield from _slow(8, 1)
        case ["refused", *_]:
            yield _REFUSAL
        case ["stream", count, *_]:
            yield _stream(int(count))
        case ["slow", count, milliseconds, *_]:
            yield from _slow(int(count), int(milliseconds))
        case _:
            yield _ANSWER


def _length(head: bytes) -> int:
    start = head.lower().find(b"\r\ncontent-length:")
    if start < 0:
        return 0
    return int(head[start + 17 :].split(b"\r\n", 1)[0])


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    held = b""
    with connection:
        while True:
            while (end := held.find(b"\r\n\r\n")) < 0:
                data = connection.recv(LONGEST_HEAD)
                if not data:
                    return
                held += data
            size = end + 4 + _length(held[:end])
            while len(held) < size:
                data = connection.recv(LONGEST_HEAD)
                if not data:
                    return
                held += data
            path = held.split(b" ", 2)[1].decode()
            body, held = held[end + 4 : size], held[size:]
            last = b""
            for piece in _answers(path, body):
                connection.sendall(piece)
                last = piece
            if last.endswith(_DONE):
                # Without chunks or a length, closing the connection marks the end.
                return


def _serve_quietly(connection: socket.socket) -> None:
    # The client may leave at any time.
    with suppress(OSError):
        _serve(connection)


def main() -> None:
    """Print the port, then serve until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve_quietly, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
