"""Model of a pool's registry: what each change does to names and versions of adapters."""

import re
from dataclasses import dataclass, field

OPERATOR, WORKER = ".operator", ".worker"


class Refused(Exception):
    """A change is refused, with a message that matches this pattern."""


@dataclass
class Name:
    """Expected state of an adapter name. It is unloaded if it has no current version."""

    current: str = ""
    is_set_by_client: bool = False
    created_s: int = 0
    previous: list[str] = field(default_factory=list)
    """Earlier versions in the order of rollbacks."""
    candidate: str = ""
    mode: str = ""
    percent: float = 0
    replicas: int = 0
    """Number of workers to which the name is pinned."""

    @property
    def trial(self) -> str:
        """The candidate and what it does, as the audit log shows it."""
        return f"{self.candidate} {self.mode} {self.percent:g}%" if self.candidate else ""


class RegistryModel:
    def __init__(self) -> None:
        self.base = "base@1"
        self.names: dict[str, Name] = {}
        self.states: dict[str, str] = {}
        """States of the versions that have an entry."""
        self.retired: set[str] = set()
        self.changes: list[tuple[str, ...]] = []
        """Action, name, author, state before and state after, oldest first."""
        self.incidents: list[tuple[str, str]] = []
        self._keep = 4

    @property
    def loaded(self) -> dict[str, Name]:
        return {name: known for name, known in self.names.items() if known.current}

    def set_base(self, version: str) -> None:
        if version != self.base:
            self.base = version
            self.states.clear()
            self.retired.clear()
            self.names = {name: known for name, known in self.names.items() if not known.current}

    def start_with(self, name: str, version: str, created_s: int) -> str | None:
        """Register the adapter of a worker, and return the current version."""
        known = self.names.setdefault(name, Name(created_s=created_s))
        is_known = version in (known.current, known.candidate, *known.previous)
        if is_known if known.is_set_by_client else known.created_s > created_s:
            return known.current or None
        self._load(known, name, version, by=WORKER)
        known.is_set_by_client, known.created_s = False, created_s
        return version

    def load(self, name: str, version: str, keep: int, *, replace: bool, by: str) -> None:
        known = self.names.get(name, Name())
        if known.current and not replace:
            raise Refused("has already been loaded")
        self._check(version)
        self._keep = keep
        self.names[name] = known
        self._load(known, name, version, by=by)
        known.is_set_by_client, known.created_s = True, 0

    def add_candidate(
        self, name: str, version: str, keep: int, mode: str, percent: float | None, *, by: str
    ) -> bool:
        known = self.loaded.get(name)
        if known is None:
            return False
        if known.current == version:
            raise Refused("is the current version")
        self._check(version)
        self._keep = keep
        self.states[version] = "ready"
        if percent is not None or known.candidate != version:
            self._try_out(known, name, version, mode, percent or 0, by)
        return True

    def set_candidate(
        self, name: str, wanted: str | None, mode: str, percent: float, *, by: str
    ) -> str | None:
        known = self.loaded.get(name)
        if known is None:
            return None
        version = wanted or known.candidate
        if not version:
            raise Refused("has no candidate")
        if version == known.current:
            raise Refused("is the current version")
        if version != known.candidate:
            self._check_kept(known, version)
        self._check(version)
        self._try_out(known, name, version, mode, percent, by)
        return version

    def end_candidate(self, name: str, *, is_promoted: bool, by: str) -> str | None:
        known = self.loaded.get(name)
        if known is None:
            return None
        version = known.candidate
        if not version:
            raise Refused("has no candidate")
        if not is_promoted:
            self._drop(known)
            self.incidents.append(("adapter_candidate_dropped", version))
            self.changes.append(("candidate_dropped", name, by, version, ""))
            return version
        self._check(version)
        before = known.current
        self._flip(known, version)
        known.is_set_by_client = True
        self.incidents.append(("adapter_replaced", version))
        self.changes.append(("candidate_promoted", name, by, before, version))
        return version

    def roll_back(self, name: str, wanted: str | None, *, by: str) -> str | None:
        known = self.loaded.get(name)
        if known is None or wanted == known.current:
            return known and known.current
        if not wanted and not known.previous:
            raise Refused("has no previous version")
        version = wanted or known.previous[0]
        self._check_kept(known, version)
        self._check(version)
        before = known.current
        known.previous.remove(version)
        known.previous.insert(0 if wanted else len(known.previous), before)
        known.current, known.is_set_by_client = version, True
        if known.candidate == version:
            known.candidate = ""
        self.incidents.append(("adapter_rolled_back", version))
        self.changes.append(("rolled_back", name, by, before, version))
        return version

    def unload(self, name: str, *, by: str) -> bool:
        known = self.loaded.get(name)
        if known is None:
            return name in self.names
        self._drop(known)
        before = known.current
        known.previous.insert(0, before)
        for version in known.previous:
            self._retire(version, "unloaded")
        known.current, known.is_set_by_client, known.replicas = "", True, 0
        self.incidents.append(("adapter_unloaded", before))
        self.changes.append(("unloaded", name, by, before, ""))
        return True

    def pin(self, name: str, replicas: int, *, by: str) -> bool:
        known = self.loaded.get(name)
        if known is None:
            return False
        if known.replicas != replicas:
            self.changes.append(("pinned", name, by, str(known.replicas), str(replicas)))
        known.replicas = replicas
        return True

    def quarantine(self, version: str) -> None:
        if self.states.get(version) == "ready":
            self.states[version] = "quarantined"
            self.incidents.append(("adapter_quarantined", version))

    def release(self, name: str) -> str | None:
        known = self.loaded.get(name)
        if known is None:
            return None
        if self.states[known.current] != "quarantined":
            raise Refused("isn't quarantined")
        self.states[known.current] = "ready"
        self.incidents.append(("adapter_released", known.current))
        self.changes.append(("released", name, OPERATOR, "", known.current))
        return known.current

    def forget(self, version: str) -> None:
        self.retired.remove(version)
        assert self.states.pop(version) in ("retired", "unloaded")

    def _check(self, version: str) -> None:
        if self.states.get(version) == "quarantined":
            raise Refused(f"{version} is quarantined")

    def _check_kept(self, known: Name, version: str) -> None:
        if version not in known.previous:
            kept = ", ".join((f"{known.current} (current)", *known.previous))
            raise Refused(re.escape(f"no version {version}; choose one of: {kept}") + "$")

    def _load(self, known: Name, name: str, version: str, *, by: str) -> None:
        before = known.current
        if self.states.get(version) != "quarantined":
            self.states[version] = "ready"
        self._flip(known, version)
        if before != version:
            self.changes.append(("loaded", name, by, before, version))
        if before and before != version:
            self.incidents.append(("adapter_replaced", version))
        elif not before and by != WORKER:
            self.incidents.append(("adapter_loaded", version))

    def _flip(self, known: Name, version: str) -> None:
        if known.candidate == version:
            known.candidate = ""
        if not known.current:
            known.previous = []
        elif known.current != version:
            rest = [each for each in known.previous if each != version]
            known.previous = [known.current, *rest][: self._keep]
            for oldest in [known.current, *rest][self._keep :]:
                if oldest != known.candidate:
                    self._retire(oldest, "retired")
        known.current = version
        self.retired.discard(version)

    def _try_out(
        self, known: Name, name: str, version: str, mode: str, percent: float, by: str
    ) -> None:
        before = known.trial
        if known.candidate != version:
            self._drop(known)
            self.retired.discard(version)
        known.candidate, known.mode, known.percent = version, mode, percent
        self.incidents.append(("adapter_candidate_set", version))
        self.changes.append(("candidate_set", name, by, before, known.trial))

    def _drop(self, known: Name) -> None:
        version, known.candidate = known.candidate, ""
        if version and version not in known.previous:
            self._retire(version, "retired")

    def _retire(self, version: str, state: str) -> None:
        if version in self.states:
            self.states[version] = state
            self.retired.add(version)
