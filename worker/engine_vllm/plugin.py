"""Runs in each process that vLLM starts, through the entry point `vllm.general_plugins`."""

import multiprocessing
import os
import sys

from shared.die_with_parent import die_with_parent

MARK = "STARTED_BY_LORIKEET_WORKER"
"""Environment variable that a worker sets for the processes of its vLLM."""


def join_worker() -> None:
    """Let this process end together with the worker that started it.

    vLLM's processes survive a parent that dies by SIGKILL, and then keep the GPU's memory
    (https://github.com/vllm-project/vllm/issues/55510). This function also moves the process out of
    the worker's process group, so that Ctrl-C doesn't stop the engine while the worker drains.
    """
    parent = multiprocessing.parent_process()
    if MARK not in os.environ or parent is None:
        return
    die_with_parent()
    if os.getppid() != parent.pid:  # it died before the call above
        sys.exit("lorikeet: the worker of this engine has ended")
    os.setpgid(0, 0)
