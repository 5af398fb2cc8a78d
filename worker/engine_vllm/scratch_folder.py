"""The temporary folder of a worker's checkpoints, which a killed worker leaves behind."""

import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "lorikeet-vllm-"


def scratch_folder() -> Path:
    """Return a new folder of this process, and delete those of processes that have ended."""
    parent = Path(tempfile.gettempdir())
    for folder in parent.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
