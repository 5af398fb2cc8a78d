"""Installs torch's build for CPUs on a machine without an NVIDIA GPU, for `make setup`.

    python ops/packaging/cpu_torch.py [INDEX]

PyPI's torch for Linux contains CUDA, which takes gigabytes. The program installs into the Python
that runs it, and needs nothing but pip. It does nothing if torch's exact version is installed, if
there is a GPU, or if PyTorch's index doesn't answer. In the last two cases, pip later uses its
usual index. It leaves out torch's dependencies: PyTorch's index may lack their exact versions.
"""

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/cpu"
TIMEOUT_S = 3.0
CONSTRAINTS = Path(__file__).parents[1] / "constraints" / "lorikeet.txt"
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
    """Return torch with its exact version, such as `torch==2.13.0`."""
    lines = CONSTRAINTS.read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def is_installed() -> bool:
    """Return whether torch is installed in the exact version, whatever it was built for."""
    try:
        return f"torch=={version('torch').partition('+')[0]}" == torch_requirement()
    except PackageNotFoundError:
        return False


def main() -> None:
    """Install torch from the index that the command line names, or from PyTorch's index."""
    index = sys.argv[1] if len(sys.argv) > 1 else INDEX
    if is_installed() or has_gpu() or not answers(index):
        return
    print(f"no NVIDIA GPU: torch is installed from {index}", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--index-url", index]
    sys.exit(subprocess.run([*pip, torch_requirement()], check=False).returncode)


if __name__ == "__main__":
    main()
