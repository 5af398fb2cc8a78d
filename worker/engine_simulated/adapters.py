"""Adapters without weights. An adapter's source is a URL of files, or any other text."""

import hashlib
import time
from collections import OrderedDict
from dataclasses import KW_ONLY, dataclass, replace
from threading import Lock

from shared.adapter_names import NAME_RULE, is_valid_name
from shared.adapter_sources import is_remote, without_query
from shared.errors import AdapterRejected, ErrorCode, JobError, SourceFailed, StoreFailed
from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.inspections import Findings, Inspection
from worker.adapters.remote.stager import Stager
from worker.adapters.source.interface import CheckedAdapter
from worker.text.prompt_style import BASE_STYLE

NUM_BYTES = 1 << 20
"""Size of every adapter in bytes. With --adapter-memory-mb 8, eight adapters are resident."""
RANK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAdapter:
    """An adapter without weights. The object also serves as the engine's image and reservation."""

    name: str
    version: AdapterVersion
    digest: str
    """SHA-256 of the source, or of the files at a URL."""
    source: str
    num_bytes: int = NUM_BYTES

    @property
    def weights_digest(self) -> str:
        """Digest of the weights. They depend only on the source."""
        return self.digest

    def named(self, name: str) -> "SimulatedAdapter":
        """Return the same adapter under another name."""
        return replace(self, name=name, version=version_of(name, self.digest))

    def registry_entry(self, source: str) -> Adapter:
        """Return a registry entry for this adapter, with the current time as its creation time."""
        return Adapter(
            name=self.name,
            version=self.version,
            digest=self.digest,
            weights_digest=self.weights_digest,
            source=source,
            rank=RANK,
            num_bytes=self.num_bytes,
            created_s=int(time.time()),
        )


def source_digest(source: str) -> str:
    """Return the digest of an adapter or a base model with this source."""
    return hashlib.sha256(source.encode()).hexdigest()


def version_of(name: str, digest: str) -> AdapterVersion:
    """Return the version id of an adapter or a base model with this name and digest."""
    return AdapterVersion(f"{name}@{digest[:12]}")


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedSource:
    """The `AdapterSource` of a simulated worker. It finds an adapter at every source."""

    _: KW_ONLY
    load_s: float
    """Seconds that each read takes."""
    stager: Stager | None = None
    """Fetches adapters from URLs."""

    def read(self, name: str, source: str) -> CheckedAdapter[SimulatedAdapter]:
        """Return the adapter at `source`. Raises AdapterRejected for a bad name or URL."""
        if not is_valid_name(name):
            raise AdapterRejected(f"bad adapter name {name!r} ({NAME_RULE})")
        time.sleep(self.load_s)
        digest = self._digest(source)
        adapter = SimulatedAdapter(
            name=name, version=version_of(name, digest), digest=digest, source=source
        )
        return CheckedAdapter(adapter, BASE_STYLE)

    def read_version(self, entry: Adapter) -> CheckedAdapter[SimulatedAdapter]:
        """Return the adapter of a registry entry. Raises AdapterRejected if its source differs."""
        adapter = self.read(entry.name, entry.source)
        if adapter.weights.digest != entry.digest:
            raise AdapterRejected(
                f"{without_query(entry.source)} now holds {adapter.weights.version}, not "
                f"{entry.version}; load the adapter again"
            )
        return adapter

    def inspect(self, asked: Inspection) -> Findings:
        """Report on an adapter that a client wants to load."""
        try:
            adapter = self.read(asked.name, asked.source).weights
        except AdapterRejected as error:
            code = ErrorCode.ADAPTER_REJECTED
            if isinstance(error, (SourceFailed, StoreFailed)):
                code = error.code if isinstance(error, SourceFailed) else ErrorCode.UNAVAILABLE
            return Findings(error=JobError(code=code, message=str(error), param="lora_path"))
        source = without_query(asked.source)
        return Findings(adapter=adapter.registry_entry(asked.source), source=source)

    def _digest(self, source: str) -> str:
        if self.stager is None or not is_remote(source):
            return source_digest(source)
        with self.stager.staged(source) as folder:
            digest = hashlib.sha256()
            for path in sorted(folder.iterdir()):
                digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
            return digest.hexdigest()


class SimulatedHostMemory:
    """The `HostMemory` of the simulated engine: an LRU cache of adapters. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        """Maximum total size of all copies, in bytes."""
        self._copies: OrderedDict[AdapterVersion, SimulatedAdapter] = OrderedDict()
        """Copies by version, least recently used first."""
        self._lock = Lock()

    @property
    def num_bytes(self) -> int:
        """Memory used by all copies, in bytes."""
        return sum(adapter.num_bytes for adapter in list(self._copies.values()))

    def __contains__(self, version: AdapterVersion) -> bool:
        """Return whether `take` would return a copy of the version."""
        return version in self._copies

    def image(self, adapter: SimulatedAdapter) -> SimulatedAdapter:
        """Return the adapter's image without storing a copy."""
        return adapter

    def has_room(self, num_bytes: int) -> bool:
        """Return whether `num_bytes` fit without evicting copies."""
        return self.num_bytes + num_bytes <= self.max_bytes

    def put(self, adapter: SimulatedAdapter, *, may_evict: bool = True) -> SimulatedAdapter:
        """Store a copy of the adapter, if it fits, and return its image."""
        with self._lock:
            is_new = adapter.version not in self._copies
            while is_new and may_evict and self._copies and not self.has_room(adapter.num_bytes):
                self._copies.popitem(last=False)
            if is_new and self.has_room(adapter.num_bytes):
                self._copies[adapter.version] = adapter
        return adapter

    def take(self, version: AdapterVersion) -> SimulatedAdapter | None:
        """Return a version's image, or None if there is no copy. Mark the copy as used."""
        self.touch(version)
        return self._copies.get(version)

    def release(self, image: SimulatedAdapter) -> None:
        """Do nothing, because images don't refer to the copies' memory."""

    def touch(self, version: AdapterVersion) -> None:
        """Mark a version as recently used."""
        with self._lock:
            if version in self._copies:
                self._copies.move_to_end(version)

    def drop(self, version: AdapterVersion) -> None:
        """Remove a version's copy, if any."""
        with self._lock:
            self._copies.pop(version, None)
