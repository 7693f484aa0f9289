"""Run a blocking call for an event loop, in its own thread, cancelled with its task.

Not in the loop's own few threads: calls that wait for a slot could occupy all of them, and the
call that holds the slot would never run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TypeAlias, TypeVar

from attrs import frozen

from muxcore.errors import MultiplexerError
from muxcore.shell.call.cancellation import Cancellation

T = TypeVar("T")

Give: TypeAlias = Callable[[T], None]
Work: TypeAlias = Callable[[Give[T], Cancellation], None]
"""Does something that blocks, and passes on its results piece by piece."""


@frozen
class _Ended:
    error: BaseException | None = None


async def pieces(work: Work[T]) -> AsyncGenerator[T]:
    """Yield what `work` passes on, as it arrives. Leaving early cancels its call."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[T | _Ended] = asyncio.Queue()
    cancellation = Cancellation()

    def give(piece: T | _Ended) -> None:
        # A closed loop has no waiter.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(arrived.put_nowait, piece)

    def run() -> None:
        try:
            work(give, cancellation)
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting task
            give(_Ended(error))
        else:
            give(_Ended())

    try:
        threading.Thread(target=run, name="vibe-mux call", daemon=True).start()
    except RuntimeError as error:
        raise MultiplexerError(f"no thread can be started ({error})") from None
    try:
        while not isinstance(piece := await arrived.get(), _Ended):
            yield piece
        if piece.error is not None:
            raise piece.error
    finally:
        cancellation.cancel()
