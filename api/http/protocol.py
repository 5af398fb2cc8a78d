"""The HTTP protocol of one connection: uvicorn's, with limits on what its client may take.

uvicorn parses without limits: headers and trailers grow as long as a client sends them, a request
may take forever to arrive, and so may a client to read its answer. Here

- bytes are counted before they reach the parser, which holds all that isn't part of a body;
- one timer runs while a request arrives, and one while the client has bytes to take;
- a request that is sent before the last one was answered isn't taken: the connection ends after
  the running answer, as RFC 9112 allows, and the client repeats it on another one.
"""

import asyncio
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api.http.connection_limits import HttpLimits, Refusal, response_bytes

LINGER_S = 1.0
"""A refused client's bytes are read and dropped for so long; else the kernel would reset the
connection, and the client might not see the response."""
MAX_UNSENT_KERNEL_BYTES = 65_536
"""Bytes that the kernel takes for a client before it has sent them."""

OnRefused = Callable[[Refusal], None]


class HttpConfig(uvicorn.Config):
    """uvicorn's configuration, with the limits of each connection."""

    def __init__(
        self, app: Any, *, limits: HttpLimits, on_refused: OnRefused, **options: Any
    ) -> None:
        super().__init__(app, http=LimitedProtocol, ws="none", **options)
        self.limits = limits
        self.on_refused = on_refused


class Phase(Enum):
    """What is expected from the client."""

    HEAD = auto()
    """A request line and headers."""
    BODY = auto()
    """The rest of a body."""
    IDLE = auto()
    """Nothing: its request is here. The next one may begin once it was answered."""
    DEAF = auto()
    """Nothing any more: whatever comes is dropped, and the connection ends soon."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        assert isinstance(config, HttpConfig)
        super().__init__(config, server_state, app_state, _loop)
        self._limits = config.limits
        self._on_refused = config.on_refused
        self._phase = Phase.HEAD
        self._timed_phase: Phase | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._num_held_bytes = 0
        """Fed to the parser since the request began, or since a part of its body came out.

        The piece in which that happens isn't counted: the parser holds twice the limit at most.
        """
        self._num_unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse one that is too many."""
        super().connection_made(transport)
        # Whatever the kernel doesn't take pauses the app, so at most one message waits here.
        transport.set_write_buffer_limits(high=0)
        _set_options(transport)
        num_over = len(self.connections) - self._limits.max_connections
        if num_over > self._limits.max_connections:
            self._on_refused(Refusal.TOO_MANY_CONNECTIONS)
            transport.abort()
        elif num_over > 0:
            self._refuse(Refusal.TOO_MANY_CONNECTIONS)
        else:
            self._time_phase()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; the app sees that its client has left."""
        self._phase = Phase.DEAF
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as far as the limits allow."""
        data = self._expected(data)
        while data:
            room = self._limits.max_header_bytes - self._num_held_bytes
            if room <= 0:
                self._refuse(Refusal.HEADERS_TOO_LARGE)
                return
            piece, data = data[:room], data[room:]
            self._num_held_bytes += len(piece)
            super().data_received(piece)
            data = self._expected(data)
        self._time_phase()

    def send_400_response(self, msg: str) -> None:
        """Refuse what isn't HTTP."""
        if self._phase is not Phase.DEAF:
            self._refuse(Refusal.MALFORMED)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        if self._is_answering():
            self._end_after_answer()
        elif self._phase is Phase.IDLE:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The headers are here: the app starts."""
        if self._phase is not Phase.DEAF:
            self._phase = Phase.BODY
            self._num_held_bytes = 0
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body came out of the parser."""
        if self._phase is not Phase.DEAF:
            self._num_held_bytes = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here in full."""
        if self._phase is not Phase.DEAF:
            self._phase = Phase.IDLE
            self._num_held_bytes = 0
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client has bytes to take: it must take some from time to time."""
        super().pause_writing()
        self._time_sending()

    def resume_writing(self) -> None:
        """The client has taken all that was here."""
        super().resume_writing()
        if self._send_timer:
            self._send_timer.cancel()
            self._send_timer = None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expected(self, data: bytes) -> bytes:
        """What is to be parsed of `data`; the first of it may begin a request."""
        if self._phase is Phase.DEAF:
            return b""
        if self._phase is Phase.IDLE:
            data = data.lstrip(b"\r\n")  # some clients end a body with an empty line
            if data and not self._is_answering():
                self._expect_head()
        return data

    def _expect_head(self) -> None:
        self._phase = Phase.HEAD
        self._num_held_bytes = 0

    def _end_after_answer(self) -> None:
        self._phase = Phase.DEAF
        self.cycle.keep_alive = False

    def _time_phase(self) -> None:
        """Start the timer of a phase that has just begun."""
        if self._phase is not self._timed_phase:
            self._timed_phase = self._phase
            if self._read_timer:
                self._read_timer.cancel()
                self._read_timer = None
            limits = self._limits
            if self._phase is Phase.HEAD:
                self._read_timer = self.loop.call_later(
                    limits.header_timeout_s, self._header_timeout
                )
            elif self._phase is Phase.BODY:
                self._read_timer = self.loop.call_later(
                    limits.body_timeout_s, self._refuse, Refusal.BODY_TIMEOUT
                )
        if self._phase is Phase.IDLE and not self._is_answering():
            self._keep_alive()

    def _keep_alive(self) -> None:
        """Start uvicorn's timer again; bytes that came after an early answer have stopped it."""
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _header_timeout(self) -> None:
        if self._num_held_bytes:
            self._refuse(Refusal.HEADER_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer the request that is arriving with an error, unless it was answered; then close."""
        can_answer = self._can_answer()
        self._on_refused(refusal)
        self._phase = self._timed_phase = Phase.DEAF
        self._cancel_timers()
        self._leave_app()
        if can_answer:
            error = self._limits.error(refusal)
            self.transport.write(response_bytes(error, self.server_state.default_headers))
        self.transport.write_eof()
        self._read_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _can_answer(self) -> bool:
        if self._phase is Phase.BODY:
            return not self.cycle.response_started
        return not self._is_answering()

    def _leave_app(self) -> None:
        """Let the app see that its client has left; what it still sends is dropped."""
        if self._is_answering():
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()

    def _time_sending(self) -> None:
        self._num_unsent_bytes = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self._limits.send_timeout_s, self._check_reader)

    def _check_reader(self) -> None:
        """Cut off a client that has taken nothing."""
        if self.transport.get_write_buffer_size() < self._num_unsent_bytes:
            self._time_sending()
        else:
            self._on_refused(Refusal.SLOW_READER)
            self.transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._read_timer, self._send_timer):
            if timer:
                timer.cancel()
        self._read_timer = self._send_timer = None


def _set_options(transport: asyncio.Transport) -> None:
    """Send at once, and let the kernel hold little for one client.

    asyncio switches Nagle's algorithm off only for sockets that were made with the number of TCP.
    Else a response's second part waits for the acknowledgement of the first: 40 ms with most
    clients. A small buffer also shows sooner whether a client reads.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_KERNEL_BYTES)
