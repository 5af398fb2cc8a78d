"""Which worker of `lorikeet up` gets which device."""

import pytest

from ops.local.devices import devices_of_workers
from ops.local.gpus import Gpus
from shared.errors import SettingsError

NONE, TWO = Gpus(0), Gpus(2)
PAIRS = Gpus(5, per_worker=2)
ABSENT = Gpus(0, absence="this torch is built for CPUs alone")
BROKEN = Gpus(0, problem="torch is installed without CUDA")


@pytest.mark.parametrize(
    ("devices", "device", "num_workers", "gpus", "expected"),
    [
        (None, "auto", None, NONE, ["auto"]),
        (None, "auto", 3, NONE, ["auto"] * 3),
        (None, "auto", None, BROKEN, ["auto"]),
        (None, "auto", None, TWO, ["cuda:0", "cuda:1"]),
        (None, "auto", 1, TWO, ["cuda:0"]),
        ("all", "auto", None, TWO, ["cuda:0", "cuda:1"]),
        ("cpu", "auto", None, TWO, ["cpu"]),
        ("cpu", "auto", 2, TWO, ["cpu", "cpu"]),
        ("cuda:1", "auto", None, TWO, ["cuda:1"]),
        ("cuda:1,cuda:0", "auto", None, TWO, ["cuda:1", "cuda:0"]),
        ("cuda,cpu", "auto", None, TWO, ["cuda:0", "cpu"]),
        ("cuda:0,cuda:0,cuda:1", "auto", None, TWO, ["cuda:0", "cuda:0", "cuda:1"]),
        ("cuda:0,cuda:0,cuda:1", "auto", 2, TWO, ["cuda:0", "cuda:0"]),
        ("cuda:5", "auto", None, NONE, ["cuda:5"]),
        (None, "cuda:1", None, TWO, ["cuda:1"]),
        (None, "cuda", 1, TWO, ["cuda:0"]),
        (None, "cpu", 2, TWO, ["cpu", "cpu"]),
        (None, "mps", None, NONE, ["mps"]),
        (None, "auto", None, PAIRS, ["cuda:0", "cuda:2"]),
        ("cuda:3,cuda:1", "auto", None, PAIRS, ["cuda:3", "cuda:1"]),
        (None, "auto", None, Gpus(0, per_worker=2), ["auto"]),
    ],
)
def test_each_device_gets_one_worker_unless_flags_say_otherwise(
    devices: str | None, device: str, num_workers: int | None, gpus: Gpus, expected: list[str]
) -> None:
    assert devices_of_workers(devices, device, num_workers, gpus) == expected


@pytest.mark.parametrize(
    ("devices", "device", "num_workers", "gpus", "message"),
    [
        ("all", "cuda:1", None, TWO, "--devices all and --device cuda:1: give one"),
        ("all", "auto", None, NONE, "--devices all: no GPU can be used here; use cpu"),
        ("all", "auto", None, BROKEN, r"\(torch is installed without CUDA\)"),
        ("0,1", "auto", None, TWO, "--devices 0,1: use all, cpu, or a list such as"),
        ("cuda:0,", "auto", None, TWO, "--devices cuda:0,: use all"),
        ("cuda:0,all", "auto", None, TWO, "--devices cuda:0,all: use all"),
        ("cuda:0,cuda:2", "auto", None, TWO, "cuda:2: a worker needs this GPU, but the last one"),
        (None, "cuda:2", None, TWO, "the last one here is cuda:1; CUDA_VISIBLE_DEVICES may"),
        (None, "auto", None, Gpus(1, per_worker=4), "this GPU and the next 3, but .* cuda:0;"),
        ("cuda:4", "auto", None, PAIRS, "cuda:4: a worker needs this GPU and the next 1"),
        (
            None,
            "auto",
            3,
            TWO,
            "--workers 3: there are only 2 devices .* --devices cuda:0,cuda:0,cuda:1$",
        ),
        (None, "cuda:1", 2, TWO, "--devices cuda:1,cuda:1$"),
        (None, "cuda", None, ABSENT, "--device cuda:0: this torch is built for CPUs alone; use"),
    ],
)
def test_devices_that_contradict_or_do_not_exist_are_refused(
    devices: str | None, device: str, num_workers: int | None, gpus: Gpus, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        devices_of_workers(devices, device, num_workers, gpus)
