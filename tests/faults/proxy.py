"""A network that fails on command: a TCP proxy between a worker and one server."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from worker.sandbox.servers.ports import free_port

T = TypeVar("T")
_HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 64 * 1024
_CHUNKS_ON_THE_WAY: Final = 256
_VERB_SECONDS: Final = 10
_CLOSE_BY_RESET: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Carries bytes between its port and the target's, until a method changes that.

    A method may be called from any thread. From its return on it holds for open and for new connections, and
    replaces the effect of the previous one. After the `with` block no socket and no thread is left.
    """

    def __init__(self, target_port: int, *, port: int | None = None, target_host: str = _HOST) -> None:
        self.port = port or free_port()
        self._target = (target_host, target_port)
        self._line = _Line()
        self._connections: dict[_Connection, asyncio.Task[None]] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy on {self.port}")
        self._thread.start()
        try:
            self._server = self._run(asyncio.start_server(self._accept, _HOST, self.port))
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self._run(self._close())
        finally:
            self._end_thread()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def swallowed_bytes(self) -> int:
        """How many bytes `drop_replies` has withheld so far. Above zero, a reply was really lost."""
        return self._line.swallowed_bytes

    def cut(self) -> None:
        """Every open connection is reset; new ones are served."""
        self._change(_Mode(), reset_all=True)

    def refuse(self) -> None:
        """Every open connection is reset, and every new one at once."""
        self._change(_Mode(refusing=True), reset_all=True)

    def stall(self) -> None:
        """Half open: nothing passes either way, not even an end; new ones are accepted and get nothing."""
        self._change(_Mode(stalled=True))

    def delay(self, seconds: float) -> None:
        """Each chunk arrives so much later, in both directions and in order; new connections as well."""
        self._change(_Mode(delay_seconds=seconds))

    def drop_replies(self, after: bytes = b"") -> None:
        """What the client sends arrives, what the server answers is lost, its end too.

        With `after` a connection loses its replies from the request on that contains these bytes:
        `after=b"COMMIT"` loses the reply of a COMMIT and of nothing before.
        """
        self._change(_Mode(dropping_replies=True, after=after))

    def heal(self) -> None:
        """Forward as it came; what was held back continues; a connection that lost a reply is reset."""
        self._change(_Mode())

    def _change(self, mode: "_Mode", reset_all: bool = False) -> None:
        async def change() -> None:
            self._line.change(mode)
            # A stream with a hole must not continue: its client would read nonsense.
            await self._reset([c for c in self._connections if reset_all or (c.holed and mode.replies)])

        self._run(change())

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._line.mode.refusing:
            _reset(writer)
            return
        connection = _Connection(self._line, reader, writer)
        task = asyncio.create_task(connection.serve(self._target))
        self._connections[connection] = task

        def ended(_task: asyncio.Task[None]) -> None:
            del self._connections[connection]
            connection.reset()  # here, since a task that is cancelled before it starts runs nothing

        task.add_done_callback(ended)

    async def _reset(self, connections: list["_Connection"]) -> None:
        tasks = [self._connections[connection] for connection in connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self) -> None:
        self._line.change(_Mode(refusing=True))
        # asyncio loses a connection that it accepts in the very step in which its server is closed.
        for listener in self._server.sockets:
            self._loop.remove_reader(listener)
        await asyncio.sleep(0)
        self._server.close()
        await self._reset(list(self._connections))
        await self._server.wait_closed()
        # What is left are connections the kernel has accepted and `_accept` has not seen: it refuses them.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_VERB_SECONDS)

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class _Mode:
    refusing: bool = False
    stalled: bool = False
    delay_seconds: float = 0.0
    dropping_replies: bool = False
    after: bytes = b""

    @property
    def replies(self) -> bool:
        return not (self.stalled or self.dropping_replies)


class _Line:
    """What holds for all connections at this moment."""

    def __init__(self) -> None:
        self.mode = _Mode()
        self.swallowed_bytes = 0
        self._changed = asyncio.Event()

    def change(self, mode: _Mode) -> None:
        self.mode = mode
        self._changed.set()
        self._changed = asyncio.Event()

    async def passes(self, read_at: float) -> None:
        """Return when what was read then may continue, by the mode of now: a heal ends a delay under way."""
        now = asyncio.get_running_loop().time
        while self.mode.stalled or now() < read_at + self.mode.delay_seconds:
            due = None if self.mode.stalled else read_at + self.mode.delay_seconds
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()


# When it was read, and what: b"" is the end of the stream, None a reset.
_Queue = asyncio.Queue[tuple[float, bytes | None]]


class _Connection:
    """One client, one connection to the server, and the bytes between."""

    def __init__(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.holed = False
        """a reply is lost, or will be"""
        self._line = line
        self._reader = reader
        self._writers = [writer]

    async def serve(self, target: tuple[str, int]) -> None:
        """Both ends are closed when this ends by itself; else `reset` has to close them."""
        try:
            await self._carry(target)
            for writer in self._writers:
                writer.close()
                await writer.wait_closed()
        except* OSError:
            pass  # how connections end here

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)

    async def _carry(self, target: tuple[str, int]) -> None:
        await self._line.passes(_now())
        reader, writer = await asyncio.open_connection(*target)
        self._writers.append(writer)
        # A queue each, because a chunk that waits for its time must not delay the one behind it.
        requests, replies = _Queue(_CHUNKS_ON_THE_WAY), _Queue(_CHUNKS_ON_THE_WAY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_read(self._reader, requests))
            tasks.create_task(_read(reader, replies))
            tasks.create_task(self._send_requests(requests, writer))
            tasks.create_task(self._send_replies(replies, self._writers[0]))

    async def _send_requests(self, queue: _Queue, writer: asyncio.StreamWriter) -> None:
        chunk: bytes | None = None
        while chunk != b"":
            chunk = await self._next(queue)
            mode = self._line.mode
            self.holed |= bool(mode.after) and mode.after in (chunk or b"")
            try:
                await _send(chunk, writer)
            except OSError:
                if chunk is None or not self._loses_replies:
                    raise
                # The server has closed the connection. The client learns that in the same way as a reply.
                self.holed = True
                return

    async def _send_replies(self, queue: _Queue, writer: asyncio.StreamWriter) -> None:
        while True:
            chunk = await self._next(queue)
            if self._loses_replies:
                self.holed = True
                self._line.swallowed_bytes += len(chunk or b"")
            else:
                await _send(chunk, writer)
            if not chunk:
                return

    async def _next(self, queue: _Queue) -> bytes | None:
        read_at, chunk = await queue.get()
        await self._line.passes(read_at)
        return chunk

    @property
    def _loses_replies(self) -> bool:
        mode = self._line.mode
        return mode.dropping_replies and (self.holed or not mode.after)


async def _read(reader: asyncio.StreamReader, queue: _Queue) -> None:
    """Everything up to the end, and how it ended."""
    chunk: bytes | None = None
    while chunk != b"":
        try:
            chunk = await reader.read(_CHUNK_BYTES)
        except OSError:
            await queue.put((_now(), None))
            return
        await queue.put((_now(), chunk))


async def _send(chunk: bytes | None, writer: asyncio.StreamWriter) -> None:
    if chunk is None:
        raise ConnectionResetError
    if chunk:
        writer.write(chunk)
        await writer.drain()
    else:
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """The other end gets a reset, not an orderly end; nothing happens if it is closed already."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_BY_RESET)
    writer.transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
