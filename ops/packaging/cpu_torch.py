"""Installs torch's build for CPUs on a machine without an NVIDIA GPU, for `make setup`.

    python ops/packaging/cpu_torch.py [INDEX]

PyPI's torch for Linux contains CUDA, which takes gigabytes. The program installs into the Python
that runs it, and needs nothing but pip. It does nothing if torch is installed, if there is a GPU,
or if PyTorch's index doesn't answer. In the last two cases, pip later uses its usual index.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/cpu"
TIMEOUT_S = 3.0
REQUIREMENTS = Path(__file__).parents[2] / "worker" / "requirements.txt"
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def has_gpu() -> bool:
    """Return whether this machine has a driver for NVIDIA's GPUs."""
    return shutil.which("nvidia-smi") is not None or NVIDIA_DRIVER.exists()


def answers(index: str) -> bool:
    """Return whether the package index sends its page for torch within `TIMEOUT_S` seconds."""
    # This runs in a process of its own, because looking up a host's name has no timeout.
    code = f"import urllib.request; urllib.request.urlopen({index!r} + '/torch/', timeout=9)"
    try:
        command = [sys.executable, "-c", code]
        subprocess.run(command, timeout=TIMEOUT_S, capture_output=True, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return False
    return True


def torch_requirement() -> str:
    """Return Lorikeet's requirement of torch, such as `torch>=2.6`."""
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line for line in lines if line.startswith("torch>"))


def main() -> None:
    """Install torch from the index that the command line names, or from PyTorch's index."""
    index = sys.argv[1] if len(sys.argv) > 1 else INDEX
    if find_spec("torch") or has_gpu() or not answers(index):
        return
    print(f"no NVIDIA GPU: torch is installed from {index}", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--index-url", index]
    sys.exit(subprocess.run([*pip, torch_requirement()], check=False).returncode)


if __name__ == "__main__":
    main()
