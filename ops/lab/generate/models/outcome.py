"""Results of serving each model type with an engine, and the files that store them."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import orjson

FILE = Path(__file__).parent / "outcomes.json"
VLLM_FILE = FILE.with_name("vllm_outcomes.json")
"""Outcomes of the vLLM engine, for the types that the native engine refuses."""


class Status(StrEnum):
    """Result of serving a tiny model of one type with an engine."""

    SERVED = "served"
    """The engine computes the same log-probabilities as transformers."""
    REFUSED = "refused"
    """The loader refuses the model and says why."""
    DIFFERS = "differs"
    """The loader accepts the model, but the engine computes different log-probabilities."""
    FAILED = "failed"
    """The loader or the engine raises an error that isn't meant for operators."""
    NOT_BUILT = "not built"
    """Transformers can't build or compute the tiny model on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of serving one model type: its status, and the reasons for it."""

    model_type: str
    architecture: str
    """Name of transformers' class."""
    status: Status
    reason: str = ""
    """Why the model isn't served, in one line."""
    adapters: str = ""
    """Modules that adapters can change, or the reason why adapters can't change any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The outcomes of one version of transformers or vLLM, sorted by model type."""

    version: str
    outcomes: tuple[Outcome, ...]


def read_outcomes(file: Path = FILE) -> Outcomes:
    """Read the stored outcomes."""
    content = orjson.loads(file.read_bytes())
    found = [Outcome(**{**row, "status": Status(row["status"])}) for row in content["outcomes"]]
    return Outcomes(version=content["version"], outcomes=tuple(found))


def write_outcomes(outcomes: Outcomes, file: Path = FILE) -> None:
    """Store `outcomes`."""
    file.write_bytes(orjson.dumps(asdict(outcomes), option=orjson.OPT_INDENT_2) + b"\n")
