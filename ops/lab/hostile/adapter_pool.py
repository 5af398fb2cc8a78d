"""Runs a pool of real processes with two tenants: one attacks the pool, the other one uses it."""

import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.lab.server_processes import clean_environment, process, wait_until_serves
from ops.local.embedded_redis import start_redis
from ops.local.ports import free_port
from shared.settings import ENV_PREFIX

START_TIMEOUT_S = 600.0
BASE = "base"
"""Name of the base model."""
NEIGHBOUR = "blue"
"""Tenant that uses the pool. The other tenant has the name `red`."""
_NEIGHBOURS_KEY = "key-of-the-neighbour-0123456789"
_PROGRAM = str(Path(sysconfig.get_path("scripts")) / "lorikeet")


@dataclass(frozen=True, slots=True)
class AdapterPool:
    """A running pool, with its processes and the API keys of its two tenants."""

    url: str
    processes: Mapping[str, "subprocess.Popen[bytes]"]
    """Processes by role, such as `worker`."""
    redis_pid: int
    hostile_key: str
    """API key of the tenant `red`."""
    neighbours_key: str = _NEIGHBOURS_KEY

    def memory_mib(self) -> dict[str, float]:
        """Return the resident memory of each process that is alive, in MiB."""
        pids = {role: one.pid for role, one in self.processes.items() if one.poll() is None}
        return {role: _resident_mib(pid) for role, pid in {**pids, "redis": self.redis_pid}.items()}


@contextmanager
def adapter_pool(model: Path, scratch: Path, rights: Sequence[str]) -> Iterator[AdapterPool]:
    """Serve `model` with Redis, a worker, a control process and a front end.

    `scratch` receives the processes' data and logs. `rights` are flags of `lorikeet keys create`,
    for the hostile key.

    Raises:
        ServerFailed: a process didn't start.
    """
    with ExitStack() as stack:
        redis = start_redis(scratch / "redis")
        stack.callback(redis.stop)
        port = free_port()
        environment = clean_environment()
        common = ["--redis-url", redis.url, "--log-level", "warning"]
        served = ["--model", str(model), "--served-name", BASE]
        store = ["--adapter-store", str(scratch / "store"), "--adapter-store-mb", "64"]
        files = ["--file-store", str(scratch / "files")]
        commands = {
            "worker": ["worker", *served, *store, "--adapter-host-mb", "32", *common],
            "control": ["control", *files, *common],
            "api": ["api", "--port", str(port), *files, *common],
        }
        keys = {f"{ENV_PREFIX}API_KEYS": f"{NEIGHBOUR}:{_NEIGHBOURS_KEY}"}
        started = {
            name: stack.enter_context(
                process(name, [_PROGRAM, *command], scratch, environment | keys)
            )
            for name, command in commands.items()
        }
        url = f"http://127.0.0.1:{port}"
        wait_until_serves(
            url, ready="/ready/worker", names={BASE}, started=[*started.values()],
            timeout_s=START_TIMEOUT_S, scratch=scratch, api_key=_NEIGHBOURS_KEY,
        )  # fmt: skip
        yield AdapterPool(url, started, redis.pid, _hostile_key(redis.url, rights))


def _hostile_key(redis_url: str, rights: Sequence[str]) -> str:
    command = [_PROGRAM, "keys", "create", "--tenant", "red", *rights, "--redis-url", redis_url]
    command += ["--yes", "--allow-lockout"]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, check=True)
    return done.stdout.decode().strip()


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = [int(line.split()[1]) for line in status if line.startswith("VmRSS")]
    return sum(sizes) / 1024
