"""Reads from a worker's settings from where clients may load adapters."""

from shared.adapter_sources import SourceTemplate
from shared.settings import WorkerSettings
from worker.adapters.source.allowed_sources import AdapterRoots


def adapter_roots(settings: WorkerSettings) -> AdapterRoots:
    """Return the sources that clients may name.

    Raises:
        SettingsError: a root isn't a folder, an organisation of the hub or a URL.
    """
    sources = settings.adapter_sources.values()
    template = SourceTemplate.of(settings.adapter_source)
    return AdapterRoots(settings.adapter_roots, sources, template)
