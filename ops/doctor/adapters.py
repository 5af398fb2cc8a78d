"""Checks the files of --adapters, as far as that is possible without a base model.

Nothing here imports torch or PEFT.
"""

from pathlib import Path

from ops.doctor.facts import AdapterFacts, Problem
from shared.adapter_flags import is_hub_id
from shared.adapter_sources import is_remote, without_query
from shared.errors import AdapterRejected
from shared.protocol.adapter_files import CONFIG_FILE
from worker.adapters.source.load_at_start import has_bases_name
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.config import config_fields, read_config

DEFAULT_RANK = 8
"""Rank that PEFT uses if an adapter's configuration has none."""


def adapter_facts(name: str, source: str, *, bases_name: str) -> AdapterFacts:
    """Return the adapter's rank and size, or why it is refused. Nothing is downloaded."""
    if name == bases_name:
        problem = Problem(str(has_bases_name(name, source)))
        return AdapterFacts(name=name, source=source, problem=problem)
    if is_remote(source):
        return AdapterFacts(name=name, source=f"{without_query(source)}, fetched by the workers")
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if is_hub_id(source) and not folder.exists():
            return AdapterFacts(name=name, source=f"{source}, from the hub")
        problem = Problem(f"adapter {name}: the folder {source} doesn't exist", "correct its path")
        return AdapterFacts(name=name, source=source, problem=problem)
    try:
        files = AdapterFiles(folder, source, is_operators=True)
        files.check()
        fields = config_fields(read_config(folder / CONFIG_FILE))
        num_bytes = files.weights_path.stat().st_size
    except (AdapterRejected, OSError) as error:
        problem = Problem(f"adapter {name} from {source}: {error}", "see ops/docs/adapters.md")
        return AdapterFacts(name=name, source=source, problem=problem)
    rank = max([fields.get("r", DEFAULT_RANK), *(fields.get("rank_pattern") or {}).values()])
    return AdapterFacts(name=name, source=source, rank=rank, num_bytes=num_bytes)
