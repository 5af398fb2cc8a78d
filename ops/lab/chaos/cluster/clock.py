"""Wall clocks of Redis servers, which a run can move.

A preloaded library replaces the clock functions of libc. The library needs a C compiler.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from shared.errors import SettingsError

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


class Clock:
    """Wall clock of the processes that are started with `environment`."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self._file.write_bytes(bytes(8))
        self.offset_s = 0
        """Seconds by which this clock is ahead of the real one."""
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKE_CLOCK": str(file),
        }
        """Environment variables of the processes that have this clock."""

    def set(self, offset_s: int) -> None:
        """Set the offset in seconds, so that the processes' clock jumps."""
        self.offset_s = offset_s
        with self._file.open("r+b") as file:  # in place, since the processes have mapped the file
            file.write(offset_s.to_bytes(8, "little", signed=True))


def build_clock_library(folder: Path) -> Path:
    """Compile the library in `folder`, and return its path.

    Raises:
        SettingsError: there is no C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SettingsError("a clock that can be moved needs a C compiler: apt-get install gcc")
    source, library = folder / "fake_clock.c", folder / "fake_clock.so"
    source.write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library
