"""HTTP protocol of one connection: uvicorn's protocol, with limits for the client.

uvicorn has no such limits: headers and trailers may grow without end, and a client may take any
amount of time to send its request or to read its response. This protocol adds:

- A byte limit for headers and trailers. Bytes are counted before they reach the parser, because the
  parser buffers everything that isn't part of a body.
- Two timers. One runs while a request arrives, the other while the client has unread bytes.
- No pipelining. If a client sends a request before the previous request is answered, the connection
  closes after the current answer, as RFC 9112 allows. The client has to send the request again on a
  new connection.
"""

import asyncio
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api.http.connection_limits import Refusal, refusal_error, response_bytes
from shared.settings import ApiSettings

LINGER_S = 1.0
"""Seconds during which a refused client's bytes are read and discarded.

Without this delay, the kernel would reset the connection, and the client might not see the
response.
"""
MAX_UNSENT_KERNEL_BYTES = 65_536
"""Maximum number of unsent bytes that the kernel buffers for one client."""

OnRefused = Callable[[Refusal], None]


class HttpConfig(uvicorn.Config):
    """uvicorn's configuration, with limits for each connection."""

    def __init__(
        self, app: Any, *, limits: ApiSettings, on_refused: OnRefused, **options: Any
    ) -> None:
        super().__init__(app, http=LimitedProtocol, ws="none", **options)
        self.limits = limits
        self.on_refused = on_refused


class Phase(Enum):
    """Part of a request that the protocol expects next."""

    HEAD = auto()
    """A request line and headers."""
    BODY = auto()
    """The rest of the body."""
    IDLE = auto()
    """Nothing, because the request is complete. The next request may start after the answer."""
    CLOSING = auto()
    """Nothing, because the connection closes soon. Received bytes are discarded."""


class LimitedProtocol(HttpToolsProtocol):
    """HTTP protocol of one connection, with the limits of its `HttpConfig`."""

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
        """Number of bytes passed to the parser since the last restart of the count.

        The count restarts at 0 when a request starts, when the headers end, and after each piece of
        the body. At a restart, the parser may still hold the rest of its last input, so it holds at
        most twice the limit.
        """
        self._num_unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if there are too many connections."""
        super().connection_made(transport)
        # The app pauses while the kernel doesn't accept bytes, so at most one message waits here.
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
        """Stop the timers, and inform the app that its client has disconnected."""
        self._phase = Phase.CLOSING
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes in pieces. Refuse a client that exceeds the byte limit."""
        data = self._expected(data)
        while data:
            num_allowed = self._limits.max_header_bytes - self._num_held_bytes
            if num_allowed <= 0:
                self._refuse(Refusal.HEADERS_TOO_LARGE)
                return
            piece, data = data[:num_allowed], data[num_allowed:]
            self._num_held_bytes += len(piece)
            super().data_received(piece)
            data = self._expected(data)
        self._time_phase()

    def send_400_response(self, msg: str) -> None:
        """Refuse a client whose bytes aren't valid HTTP."""
        if self._phase is not Phase.CLOSING:
            self._refuse(Refusal.MALFORMED)

    def on_message_begin(self) -> None:
        """Handle the start of a request."""
        super().on_message_begin()
        if self._is_answering():
            self._phase = Phase.CLOSING
            self.cycle.keep_alive = False
        elif self._phase is Phase.IDLE:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Handle the end of the headers, and start the app."""
        if self._phase is not Phase.CLOSING:
            self._phase = Phase.BODY
            self._num_held_bytes = 0
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Handle a parsed piece of the body."""
        if self._phase is not Phase.CLOSING:
            self._num_held_bytes = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle the end of the request."""
        if self._phase is not Phase.CLOSING:
            self._phase = Phase.IDLE
            self._num_held_bytes = 0
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Start the send timer, because the client has unread bytes."""
        super().pause_writing()
        self._time_sending()

    def resume_writing(self) -> None:
        """Stop the send timer, because the client has read all bytes."""
        super().resume_writing()
        if self._send_timer:
            self._send_timer.cancel()
            self._send_timer = None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expected(self, data: bytes) -> bytes:
        """Return the part of `data` to parse. If a new request starts, set the phase to HEAD.

        If the connection is closing, no part is parsed. If a new request starts while the previous
        request is still being answered, the phase stays IDLE here, and `on_message_begin` then sets
        the phase to CLOSING.
        """
        if self._phase is Phase.CLOSING:
            return b""
        if self._phase is Phase.IDLE:
            data = data.lstrip(b"\r\n")  # some clients send an empty line after a body
            if data and not self._is_answering():
                self._expect_head()
        return data

    def _expect_head(self) -> None:
        self._phase = Phase.HEAD
        self._num_held_bytes = 0

    def _time_phase(self) -> None:
        """Start the timer of the current phase if the phase has just begun."""
        if self._phase is not self._timed_phase:
            self._timed_phase = self._phase
            if self._read_timer:
                self._read_timer.cancel()
                self._read_timer = None
            limits = self._limits
            if self._phase is Phase.HEAD:
                self._read_timer = self.loop.call_later(
                    limits.header_timeout_s, self._on_header_timeout
                )
            elif self._phase is Phase.BODY:
                self._read_timer = self.loop.call_later(
                    limits.body_timeout_s, self._refuse, Refusal.BODY_TIMEOUT
                )
        if self._phase is Phase.IDLE and not self._is_answering():
            self._restart_keep_alive()

    def _restart_keep_alive(self) -> None:
        """Start uvicorn's keep-alive timer unless it is running.

        uvicorn starts the timer after each answer, and stops it when bytes arrive. If the app
        answers before the whole body has arrived, the rest of the body therefore stops the timer.
        """
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _on_header_timeout(self) -> None:
        if self._num_held_bytes:
            self._refuse(Refusal.HEADER_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Close the connection. Send an error first, unless an answer has already started."""
        is_answered = self._is_answering()
        if self._phase is Phase.BODY:
            is_answered = self.cycle.response_started
        self._on_refused(refusal)
        self._phase = self._timed_phase = Phase.CLOSING
        self._cancel_timers()
        self._disconnect_app()
        if not is_answered:
            error = refusal_error(refusal, self._limits)
            self.transport.write(response_bytes(error, self.server_state.default_headers))
        self.transport.write_eof()
        self._read_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _disconnect_app(self) -> None:
        """Inform the app that its client has disconnected. Any further output is discarded."""
        if self._is_answering():
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()

    def _time_sending(self) -> None:
        self._num_unsent_bytes = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self._limits.send_timeout_s, self._check_reader)

    def _check_reader(self) -> None:
        """Close the connection if the client has read nothing since the send timer started.

        Restarts the timer if the client has read some bytes.
        """
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
    """Disable Nagle's algorithm, and limit how much the kernel buffers for a client.

    asyncio doesn't disable the algorithm here, because the listening socket was created without
    TCP's protocol number. With the algorithm, the second part of a response waits until the client
    acknowledges the first part. Most clients delay the acknowledgement by 40 ms. With a small
    kernel buffer, a client that doesn't read is detected earlier.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_KERNEL_BYTES)
