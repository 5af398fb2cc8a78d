"""The folder where `lorikeet up` keeps Redis' data and copies of adapters across restarts."""

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from shared.cache_folder import write_problem
from shared.errors import SettingsError
from shared.settings import WorkerSettings
from shared.user_folders import user_folder

VARIABLE = "XDG_DATA_HOME"
NOTHING = Path("none")
"""Value of --data-dir that keeps no data."""
LOCK_FILE, REDIS, ADAPTERS, FILES = "lock", "redis", "adapters", "files"
"""Names in the folder: its lock, the append-only file of Redis, copies of adapters, and the file
store."""
MAX_NAME_CHARS = 100
END_OF_REDIS_S = 15.0
"""Maximum seconds to wait until the Redis of a killed `lorikeet up` has written its data."""
PROBE_BYTES = 1 << 20
"""Free space in bytes that the folder needs at the start."""
SAMPLES = 8
SAMPLE_BYTES = 1 << 16
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder for the data of one pool and base model, locked by this process."""

    path: Path
    lock: int
    """Open file that holds the lock.

    Processes that inherit the file keep the folder locked until they end.
    """

    @property
    def redis(self) -> Path:
        """Folder of Redis' append-only file."""
        return self.path / REDIS


def users_data_folder() -> Path:
    """Return `$XDG_DATA_HOME/lorikeet`, or `~/.local/share/lorikeet` if the variable isn't set.

    Raises:
        SettingsError: the variable isn't set, and this user has no home folder.
    """
    return user_folder(
        VARIABLE,
        ".local/share",
        without_home=f"for data: set --data-dir or {VARIABLE} to a folder that can be written, or "
        "use --data-dir none",
    )


def data_root(data_dir: Path | None) -> Path | None:
    """Return the folder that contains all pools' data folders; None if no data are kept.

    `data_dir` is the value of --data-dir.

    Raises:
        SettingsError: `data_dir` is None, and this user has no home folder.
    """
    if data_dir is None:
        return users_data_folder()
    return None if data_dir == NOTHING else data_dir.expanduser()


def data_folder(data_dir: Path | None, worker: WorkerSettings, base: Path | None) -> Path | None:
    """Return the folder for a pool's data; None if no data are kept. It may not exist yet.

    `data_dir` is the value of --data-dir. `base` is the folder of the base model, or None if its
    engine reads no files.

    Raises:
        SettingsError: a file of the base model can't be read, or this user has no data folder.
    """
    root = data_root(data_dir)
    if root is None:
        return None
    name = worker.served_name or (base.name if base else worker.model)
    digest = quick_digest(base) if base else hashlib.sha256(worker.model.encode()).hexdigest()
    if worker.quantize is not None:  # quantised, the base gives other answers
        digest = hashlib.sha256(f"{digest} {worker.quantize}".encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:MAX_NAME_CHARS]
    return root.absolute() / f"{worker.pool}-{name}-{digest[:12]}"


def quick_digest(base: Path) -> str:
    """Return a digest of the base model in the folder or GGUF file `base`, as 64 hex digits.

    The digest covers each file's name, size and up to `SAMPLES` pieces, so that it takes
    milliseconds. Training changes nearly all weights, so it changes these pieces. Workers compute
    the digest of all bytes while they load the model, and unregister adapters that belong to other
    weights.

    Raises:
        SettingsError: a file can't be read.
    """
    # Imported here, because only engines that read files need the packages that it imports.
    from worker.model.loading.folder import model_files

    digest = hashlib.sha256()
    for path in model_files(base):
        try:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(f"{path.name}\0{size}\0".encode())
                for start in _sample_starts(size):
                    digest.update(os.pread(file.fileno(), SAMPLE_BYTES, start))
        except OSError as error:
            raise SettingsError(f"--model: {path} can't be read: {error.strerror}") from None
    return digest.hexdigest()


def _sample_starts(size: int) -> list[int]:
    """Return the start offsets of the samples of a file, evenly spaced over the file."""
    last = size - SAMPLE_BYTES
    if last <= SAMPLE_BYTES * (SAMPLES - 1):
        return list(range(0, size, SAMPLE_BYTES))
    return [last * number // (SAMPLES - 1) for number in range(SAMPLES)]


@contextmanager
def locked_folder(path: Path) -> Iterator[DataFolder]:
    """Create the folder `path` if it doesn't exist, and lock it during the block.

    Only this user can read the folder.

    Raises:
        SettingsError: the folder can't be written, or another `lorikeet up` uses it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise not_writable(path, error) from None
    try:
        try:
            _take_lock(path, lock)
            os.truncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            _check_space(path)
        except OSError as error:
            raise not_writable(path, error) from None
        yield DataFolder(path, lock)
    finally:
        os.close(lock)


def check_unused(path: Path) -> None:
    """Check that no `lorikeet up` uses the folder `path`. The folder may not exist.

    Raises:
        SettingsError: another `lorikeet up` uses the folder, or its lock can't be opened.
    """
    try:
        lock = os.open(path / LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return
    except OSError as error:
        raise not_writable(path, error) from None
    try:
        _take_lock(path, lock)
    finally:
        os.close(lock)


def _take_lock(path: Path, lock: int) -> None:
    """Lock the file `lock`. If its owner is dead, wait for the end of the owner's Redis."""
    deadline_s = time.monotonic() + END_OF_REDIS_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
        if _is_alive(owner) or time.monotonic() > deadline_s:
            raise SettingsError(
                f"--data-dir: another `lorikeet up` (process {owner or 'unknown'}) uses {path}. "
                "Stop it, or give this one another --pool or --data-dir; --data-dir none keeps "
                "nothing"
            )
        time.sleep(_POLL_S)


def _is_alive(pid: str) -> bool:
    # A process that has just taken the lock may not have written its id yet.
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _check_space(path: Path) -> None:
    """Raise OSError if a file of `PROBE_BYTES` can't be written to the folder."""
    with tempfile.TemporaryFile(dir=path) as probe:
        probe.write(bytes(PROBE_BYTES))
        probe.flush()
        os.fsync(probe.fileno())


def not_writable(path: Path, error: OSError) -> SettingsError:
    """Return the error for a data folder that isn't writable."""
    problem = write_problem(path, error) or f"{path} can't be written ({error})"
    return SettingsError(
        f"--data-dir: {problem}; make room, name another folder, or use --data-dir none, which "
        "keeps nothing"
    )
