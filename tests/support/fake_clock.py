"""Redis servers with a clock that tests can move, by a preloaded library that replaces libc's."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.local.embedded_redis import EmbeddedRedis, start_redis

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *offset_s;

__attribute__((constructor)) static void map_offset(void) {
  int file = open(getenv("FAKE_CLOCK"), O_RDONLY);
  offset_s = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  int result = real(tv, tz);
  tv->tv_sec += *offset_s;
  return result;
}

int clock_gettime(clockid_t id, struct timespec *ts) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, ts);
  if (id == CLOCK_REALTIME) ts->tv_sec += *offset_s;
  return result;
}

time_t time(time_t *out) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  if (out) *out = ts.tv_sec;
  return ts.tv_sec;
}
"""


class FakeClock:
    """Wall clock of Redis servers, with an offset in seconds."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        self._servers: list[EmbeddedRedis] = []

    @classmethod
    @contextmanager
    def build(cls, folder: Path) -> Iterator["FakeClock"]:
        """Compile the library in `folder`. Servers with this clock are stopped at exit."""
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("the fake clock needs a C compiler: apt-get install gcc")
        source, library = folder / "fake_clock.c", folder / "fake_clock.so"
        source.write_text(SOURCE)
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        file = folder / "offset"
        clock = cls(library, file)
        clock.set(0)
        try:
            yield clock
        finally:
            for server in clock._servers:
                server.stop()

    def set(self, offset_s: int) -> None:
        """Set the offset, so that the servers' clock jumps."""
        raw = offset_s.to_bytes(8, "little", signed=True)
        if not self._file.exists():
            self._file.write_bytes(raw)
        with self._file.open("r+b") as file:  # in place, since the servers have mapped the file
            file.write(raw)

    def start_redis(self, directory: Path | None = None) -> str:
        """Start a server with this clock, and return its URL."""
        variables = {"LD_PRELOAD": str(self._library), "FAKE_CLOCK": str(self._file)}
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            self._servers.append(start_redis(directory))
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        return self._servers[-1].url
