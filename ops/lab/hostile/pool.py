"""A pool of processes: Redis, a front end, workers with the simulated engine, and control."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

from ops.lab.hostile.batch_inputs import ADAPTERS, BASE
from ops.lab.server_processes import clean_environment, process, wait_until_serves
from ops.local.embedded_redis import start_redis
from ops.local.ports import free_port

START_TIMEOUT_S = 180.0
ADMIN = "admin"
WORKER_FLAGS = (
    *("--engine", "simulated", "--simulated-step-ms", "4", "--max-num-seqs", "64"),
    *("--adapter-memory-mb", "8", "--adapter-host-mb", "0", "--adapter-private-host", "127.0.0.1"),
    *("--adapters", *(f"{name}={name}" for name in ADAPTERS)),
)


class HostilePool:
    """A running pool, whose control process can be killed."""

    def __init__(self, scratch: Path, redis_url: str, port: int, keys: Mapping[str, str]) -> None:
        self.scratch = scratch
        self.redis_url = redis_url
        self.url = f"http://127.0.0.1:{port}/v1"
        self.keys = keys
        """Secret API keys by tenant."""
        self.files = scratch / "files"
        self.num_kills = 0
        self._controls = ExitStack()
        self._control: Popen[bytes] | None = None

    def start_control(self) -> None:
        """Start a control process."""
        words = lorikeet("control", self.redis_url, "--file-store", str(self.files))
        name = f"control-{self.num_kills}"
        running = process(name, words, self.scratch, clean_environment())
        self._control = self._controls.enter_context(running)

    def kill_control(self) -> None:
        """Kill the control process with SIGKILL, and start another one."""
        assert self._control
        self._control.kill()
        self._control.wait()
        self.num_kills += 1
        self.start_control()

    def control_has_died(self) -> bool:
        """Return whether the control process has ended by itself."""
        return self._control is not None and self._control.poll() is not None

    def stop_control(self) -> None:
        """Stop the control process."""
        self._controls.close()

    def control_log(self) -> str:
        """Return the log of all control processes."""
        paths = sorted(self.scratch.glob("control-*.log"))
        return "".join(path.read_text(errors="replace") for path in paths)


@contextmanager
def hostile_pool(scratch: Path, tenants: Sequence[str], source_url: str) -> Iterator[HostilePool]:
    """Run a pool with a key for each tenant. It may load adapters from the server of `source_url`.

    Raises:
        ServerFailed: the pool didn't become ready.
    """
    scratch.mkdir(parents=True)
    with ExitStack() as stack:
        redis = start_redis(None)
        stack.callback(redis.stop)
        keys = {tenant: f"key-of-{tenant}-0123456789" for tenant in (*tenants, ADMIN)}
        port = free_port()
        pool = HostilePool(scratch, redis.url, port, keys)
        given = " ".join(f"{tenant}:{key}" for tenant, key in keys.items())
        environment = clean_environment() | {"LORIKEET_API_KEYS": given}
        store = ("--file-store", str(pool.files))
        root = source_url.rpartition("/")[0]
        commands = {
            "worker": lorikeet("worker", redis.url, BASE, *WORKER_FLAGS, "--adapter-root", root),
            "api": lorikeet("api", redis.url, "--port", str(port), *store),
        }
        started = [
            stack.enter_context(process(name, words, scratch, environment | _own_cache(scratch)))
            for name, words in commands.items()
        ]
        stack.callback(pool.stop_control)
        pool.start_control()
        wait_until_serves(
            f"http://127.0.0.1:{port}",
            ready="/ready/worker",
            names={BASE, *ADAPTERS},
            started=started,
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
            api_key=keys[ADMIN],
        )
        yield pool


def lorikeet(command: str, redis_url: str, *words: str) -> list[str]:
    """Return a command of Lorikeet."""
    program = [sys.executable, "-c", "from ops.cli import main; main()"]
    return [*program, command, *words, "--redis-url", redis_url, "--log-level", "warning"]


def _own_cache(scratch: Path) -> dict[str, str]:
    """Return environment variables for a cache folder that no other run has filled."""
    paths = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return {"XDG_CACHE_HOME": str(scratch / "cache"), "PYTHONPATH": paths.rstrip(os.pathsep)}
