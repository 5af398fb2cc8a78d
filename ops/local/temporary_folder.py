"""A temporary folder that is removed however this process ends, even by SIGKILL."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Its standard input ends when this process ends. Redis may still write to the folder then.
_REMOVE_AFTER_PARENT = """
cat > /dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1"; [ -e "$1" ] || exit 0; sleep 1; done
"""


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Provide a folder that only this user can read. It is removed after the block.

    If this process is killed, a small process that waits for its end removes the folder.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    remover = subprocess.Popen(
        ["/bin/sh", "-c", _REMOVE_AFTER_PARENT, "sh", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C must not end it
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        remover.communicate()
