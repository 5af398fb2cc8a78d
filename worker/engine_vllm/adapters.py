"""Adapters of a vLLM worker: checkpoints on disk. vLLM loads each into one slot of memory.

vLLM reads adapters from folders, and interprets PEFT's settings itself. To serve exactly what
Lorikeet's reader has checked, each adapter is written as a new checkpoint of plain matrices, in
which every scaling is applied already.
"""

import itertools
import json
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from safetensors.torch import save_file
from torch.nn.functional import pad

from shared.protocol.ids import AdapterVersion
from worker.lora.base.modules import ModuleShape
from worker.lora.checkpoint.adapter import LoRAAdapter

_ITEM_BYTES = 2
"""Bytes per weight of an adapter in vLLM. In tests with a float32 base, it is 4 bytes."""
_PREFIX = "base_model.model."
"""Prefix of all tensor names in PEFT's checkpoints."""
_SCRATCH = "lorikeet-vllm-"
"""Prefix of the names of temporary folders. Killed workers leave such folders behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmImage:
    """A checkpoint in the form that vLLM loads."""

    version: AdapterVersion
    weights_digest: str
    folder: Path
    num_bytes: int
    """Memory of the slot that the adapter takes, in bytes. All slots are equally large."""


def slot_bytes(linears: Mapping[str, ModuleShape], *, max_rank: int) -> int:
    """Return the bytes of one of vLLM's slots: an adapter of rank `max_rank` on all `linears`."""
    widths = sum(shape.in_features + shape.out_features for shape in linears.values())
    return widths * max_rank * _ITEM_BYTES


class VllmHostMemory:
    """The `HostMemory` of the vLLM engine: an LRU cache of checkpoints in a folder. Thread-safe.

    This process owns the folder. The kernel's page cache keeps the files in memory. The files of an
    image that was released can be deleted, because vLLM has copied the image by then.
    """

    def __init__(self, folder: Path, *, max_bytes: int, slot_bytes: int) -> None:
        """Create a cache of up to `max_bytes` of files in the empty `folder`.

        `slot_bytes` is the size of one of vLLM's slots for adapters.
        """
        self.max_bytes = max_bytes
        self._folder = folder
        self._slot_bytes = slot_bytes
        self._numbers = itertools.count()
        self._kept: OrderedDict[AdapterVersion, VllmImage] = OrderedDict()
        """Images by version, least recently used first."""
        self._readers: dict[Path, int] = {}
        """For each folder, the number of uses that haven't been released yet."""
        self._sizes: dict[Path, int] = {}
        self._lock = Lock()

    @property
    def num_bytes(self) -> int:
        """Size of the files that are kept, in bytes."""
        with self._lock:
            return self._num_bytes()

    def __contains__(self, version: AdapterVersion) -> bool:
        """Return whether `take` would return an image of the version."""
        return version in self._kept

    def image(self, adapter: LoRAAdapter) -> VllmImage:
        """Return an image without files. `Engine.place` needs only its version and slot size."""
        return self._image(adapter, self._folder)

    def has_room(self, num_bytes: int) -> bool:
        """Return whether the files that are kept have fewer bytes than `max_bytes`.

        `num_bytes` is the size of a slot in vLLM, which says nothing about files, so it is ignored.
        """
        return self.num_bytes < self.max_bytes

    def put(self, adapter: LoRAAdapter, *, may_evict: bool = True) -> VllmImage:
        """Write a checkpoint, keep it if it fits, and return its image."""
        if (image := self.take(adapter.version)) is not None:
            return image
        image = self._image(adapter, self._folder / str(next(self._numbers)))
        try:
            size = write_checkpoint(adapter, image.folder)
        except BaseException:  # most likely, the disk is full
            shutil.rmtree(image.folder, ignore_errors=True)
            raise
        with self._lock:
            self._readers[image.folder], self._sizes[image.folder] = 1, size
            self._keep(image, size, may_evict=may_evict)
        return image

    def take(self, version: AdapterVersion) -> VllmImage | None:
        """Return a version's image, or None if there is none. Mark the image as recently used."""
        with self._lock:
            image = self._kept.get(version)
            if image is not None:
                self._kept.move_to_end(version)
                self._readers[image.folder] += 1
        return image

    def release(self, image: VllmImage) -> None:
        """End the caller's use of an image that `put` or `take` returned."""
        with self._lock:
            if image.folder in self._readers:  # images that `image` returned have no files
                self._readers[image.folder] -= 1
                self._tidy(image)

    def touch(self, version: AdapterVersion) -> None:
        """Mark a version as recently used without reading its image."""
        with self._lock:
            if version in self._kept:
                self._kept.move_to_end(version)

    def drop(self, version: AdapterVersion) -> None:
        """Remove a version's image, if any."""
        with self._lock:
            if version in self._kept:
                self._forget(version)

    def _image(self, adapter: LoRAAdapter, folder: Path) -> VllmImage:
        return VllmImage(
            version=adapter.version,
            weights_digest=adapter.weights_digest,
            folder=folder,
            num_bytes=self._slot_bytes,
        )

    def _keep(self, image: VllmImage, size: int, *, may_evict: bool) -> None:
        """Keep an adapter's files if they fit. With `may_evict`, drop others to make room."""
        if size > self.max_bytes or image.version in self._kept:
            return
        while may_evict and self._kept and self._num_bytes() + size > self.max_bytes:
            self._forget(next(iter(self._kept)))
        if self._num_bytes() + size <= self.max_bytes:
            self._kept[image.version] = image

    def _num_bytes(self) -> int:
        return sum(self._sizes[image.folder] for image in self._kept.values())

    def _forget(self, version: AdapterVersion) -> None:
        self._tidy(self._kept.pop(version))

    def _tidy(self, image: VllmImage) -> None:
        """Delete the files of an image that is neither kept nor used."""
        if self._readers[image.folder] == 0 and self._kept.get(image.version) is not image:
            del self._readers[image.folder], self._sizes[image.folder]
            shutil.rmtree(image.folder, ignore_errors=True)


def write_checkpoint(adapter: LoRAAdapter, folder: Path) -> int:
    """Write the low-rank matrices of `adapter` as a PEFT checkpoint, and return its size in bytes.

    The matrices of all linears are padded with zeros to the largest rank. Alpha equals this rank.
    """
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": adapter.rank,
        "lora_alpha": adapter.rank,
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in adapter.modules}),
    }
    tensors = {}
    for name, weights in adapter.modules.items():
        missing = adapter.rank - weights.a.shape[0]
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = pad(weights.a, (0, 0, 0, missing)).contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = pad(weights.b, (0, missing)).contiguous()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return sum(path.stat().st_size for path in folder.iterdir())


def scratch_folder() -> Path:
    """Return a new folder of this process, and delete the folders of processes that have ended."""
    parent = Path(tempfile.gettempdir())
    for folder in parent.glob(f"{_SCRATCH}*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
