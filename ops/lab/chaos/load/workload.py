"""Describes the clients that one process runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from ops.lab.chaos.load.requests import RequestSource
from ops.lab.chaos.load.text_checks import SimulatedTexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Settings of the clients that one process runs. Can be stored as JSON."""

    urls: Sequence[str]
    """URLs of the front ends."""
    seed: int
    first_client: int
    """Number of the process's first client. Numbers are unique in the run."""
    num_clients: int
    versions: Mapping[str, str]
    """Version of the base model and of each adapter, by name."""
    lengths: tuple[int, int]
    """Minimum and maximum number of tokens of an answer."""
    records: str
    """Path of the file for the records."""

    def source(self, client: int) -> RequestSource:
        """Return the source of a client's requests."""
        return RequestSource(
            self.seed,
            client,
            models=list(self.versions),
            lengths=self.lengths,
        )

    def texts(self) -> SimulatedTexts:
        """Return the object that checks clients' answers against the simulated texts."""
        return SimulatedTexts(self.versions)

    def write(self, file: Path) -> None:
        """Write the workload to a file."""
        file.write_bytes(orjson.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> "Workload":
        """Return the workload in a file."""
        fields = orjson.loads(file.read_bytes())
        return cls(**{**fields, "lengths": tuple(fields["lengths"])})
