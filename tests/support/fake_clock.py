"""Redis servers with a clock that tests can move."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.lab.chaos.cluster.clock import Clock, build_clock_library
from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.errors import SettingsError


class FakeClock:
    """Wall clock of Redis servers, with an offset in seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._servers: list[EmbeddedRedis] = []

    @classmethod
    @contextmanager
    def build(cls, folder: Path) -> Iterator["FakeClock"]:
        """Compile the library in `folder`. Servers with this clock are stopped at exit."""
        try:
            library = build_clock_library(folder)
        except SettingsError as error:
            pytest.skip(str(error))
        clock = cls(Clock(library, folder / "offset"))
        try:
            yield clock
        finally:
            for server in clock._servers:
                server.stop()

    def set(self, offset_s: int) -> None:
        self._clock.set(offset_s)

    def start_redis(self, directory: Path | None = None) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._clock.environment.items():
                patch.setenv(name, value)
            self._servers.append(start_redis(directory))
        return self._servers[-1].url
