"""Turns facts into a report. Does no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ops.doctor.facts import BaseFacts, Facts, Fit, Machine, Plan, Problem, RedisFacts

GIB, MIB = 1 << 30, 1 << 20
MAX_ADAPTERS_SHOWN = 12
INSTALL = "run `pip install lorikeet-serve`"


class Mark(StrEnum):
    """Severity of a row of the report."""

    OK = "ok"
    """A fact that needs no action."""
    HINT = "hint"
    """A fact that doesn't prevent the start, but could be better."""
    MISSING = "missing"
    """Something that `lorikeet up` needs to start."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    name: str
    value: str
    mark: Mark = Mark.OK
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the report."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All tables of the report, in the order in which they are shown."""

    sections: tuple[Section, ...]
    running: str | None = None
    """URL of the user's running server, if the report is about this server's next start."""

    @property
    def missing(self) -> list[Row]:
        """Rows that prevent the start."""
        return self._with(Mark.MISSING)

    @property
    def hints(self) -> list[Row]:
        """Rows that don't prevent the start, but show something to improve."""
        return self._with(Mark.HINT)

    @property
    def starts(self) -> bool:
        """Whether `lorikeet up` would start with these settings, once `running` has ended."""
        return not self.missing

    def _with(self, mark: Mark) -> list[Row]:
        return [row for section in self.sections for row in section.rows if row.mark is mark]


def report(facts: Facts) -> Report:
    """Return the report of `facts`."""
    titles = {
        "This machine": _machine(facts.machine, facts.plan),
        "What will be used": _used(facts),
        "Base model": _base(facts.base),
        "Adapters": _adapters(facts),
        "What fits, per worker": _fit(facts.fit),
    }
    sections = [Section(title, tuple(rows)) for title, rows in titles.items()]
    return Report(tuple(section for section in sections if section.rows), facts.running)


def size(num_bytes: int) -> str:
    """Return a size in human-readable form, such as `1.5 GiB`."""
    if num_bytes >= GIB:
        return f"{num_bytes / GIB:.1f} GiB"
    return f"{num_bytes / MIB:.0f} MiB" if num_bytes >= MIB else f"{num_bytes / 1024:.0f} KiB"


def _row(name: str, value: str, problem: Problem | None, mark: Mark = Mark.MISSING) -> Row:
    """Return a row that shows `value`, or `problem` if there is one."""
    return Row(name, value) if problem is None else Row(name, problem.text, mark, problem.fix)


def _machine(machine: Machine | None, plan: Plan | None) -> Iterator[Row]:
    if machine is None:
        return
    yield Row("CPU", f"{machine.cpu}, {machine.cores} usable cores")
    yield Row("instruction sets", ", ".join(machine.instruction_sets) or "no AVX2")
    yield Row("memory", f"{size(machine.memory)}, {size(machine.free_memory)} free")
    for index, gpu in enumerate(machine.gpus):
        yield Row(f"GPU {index}", f"{gpu.name}, {size(gpu.total)}, {size(gpu.free)} free")
    if plan is not None and plan.gpu_problem:
        command = "pip install --force-reinstall torch" if machine.cuda is None else "nvidia-smi"
        yield Row("GPUs", f"not used: {plan.gpu_problem}", Mark.HINT, f"run `{command}`")
    elif not machine.gpus:
        yield Row("GPUs", "none")
    yield Row("Python", machine.python)
    needs_torch = plan is None or plan.engine == "native"
    yield _torch(machine, Mark.MISSING if needs_torch else Mark.OK)
    if machine.missing_packages:
        names = ", ".join(machine.missing_packages)
        yield Row("packages", f"missing: {names}", Mark.MISSING, INSTALL)
    yield _row("versions", ", ".join(machine.versions), machine.untested, Mark.HINT)
    yield Row("C++ compiler", machine.compiler or "none")
    yield _vllm(machine, is_needed=plan is not None and plan.engine == "vllm")
    for folder in machine.folders:
        free = "" if folder.free is None else f", {size(folder.free)} free"
        yield _row(folder.purpose, f"{folder.path}{free}", folder.problem)


def _torch(machine: Machine, mark_if_absent: Mark) -> Row:
    if machine.torch is None:
        return Row("torch", "not installed", mark_if_absent, INSTALL)
    build = f"built for CUDA {machine.cuda}" if machine.cuda else "built for CPUs"
    triton = ", with Triton" if machine.has_triton else ""
    return Row("torch", f"{machine.torch}, {build}{triton}")


def _vllm(machine: Machine, *, is_needed: bool) -> Row:
    if machine.vllm is not None:
        return Row("vLLM", machine.vllm)
    if is_needed:
        fix = "run `make vllm` in a checkout, or give --vllm-python with the Python that has vLLM"
        return Row("vLLM", "not installed", Mark.MISSING, fix)
    return Row("vLLM", "not installed (only --engine vllm needs it)")


def _used(facts: Facts) -> Iterator[Row]:
    for problem in facts.problems:
        yield Row("settings", problem.text, Mark.MISSING, problem.fix)
    for hint in facts.hints:
        yield Row("note", hint.text, Mark.HINT, hint.fix)
    if facts.plan is not None:
        yield from _plan(facts.plan)
    if facts.redis is not None:
        yield from _redis(facts.redis)


def _plan(plan: Plan) -> Iterator[Row]:
    yield Row("engine", plan.engine)
    number = len(plan.devices)
    devices = ", ".join(dict.fromkeys(plan.devices))
    threads = f"{plan.threads} CPU thread{'' if plan.threads == 1 else 's'}"
    yield Row("workers", f"{number} on {devices}, {threads}{' each' if number > 1 else ''}")
    if plan.dtype:
        yield Row("dtype", plan.dtype)
    if plan.kernels:
        yield Row("kernels", plan.kernels)
    if problem := plan.kernels_problem:
        yield Row("kernels", problem.text, Mark.HINT, problem.fix)
    if plan.url:
        yield Row("API", plan.url)


def _redis(redis: RedisFacts) -> Iterator[Row]:
    place = "a private server, started and stopped by up" if redis.url is None else redis.url
    parts = [place, redis.server, *redis.details]
    yield _row("Redis", ", ".join(part for part in parts if part), redis.problem)
    for warning in redis.warnings:
        yield Row("Redis", warning.text, Mark.HINT, warning.fix)


def _base(base: BaseFacts | None) -> Iterator[Row]:
    if base is None:
        return
    yield Row("base", f"{base.source}: {base.place}" if base.place else base.source)
    if base.architecture:
        yield Row("architecture", base.architecture)
    if base.num_parameters:
        parameters = f"{base.num_parameters / 1e6:,.0f} million parameters"
        yield Row("size", f"{parameters}, {size(base.weight_bytes)} in memory")
    if base.max_model_len:
        yield Row("context", f"{base.max_model_len:,} tokens")
    if base.problem is not None:
        yield Row("served", base.problem.text, Mark.MISSING, base.problem.fix)
    elif base.architecture:
        yield Row("served", "yes, as far as its configuration shows")


def _adapters(facts: Facts) -> Iterator[Row]:
    bad = [adapter for adapter in facts.adapters if adapter.problem]
    good = [adapter for adapter in facts.adapters if not adapter.problem]
    for adapter in bad:
        mark = Mark.HINT if facts.skips_bad_adapters else Mark.MISSING
        yield _row(adapter.name, "", adapter.problem, mark)
    for adapter in good[:MAX_ADAPTERS_SHOWN]:
        details = [f"rank {adapter.rank}"] if adapter.rank else []
        details += [size(adapter.num_bytes)] if adapter.num_bytes else []
        yield Row(adapter.name, ", ".join([*details, adapter.source]))
    if len(good) > MAX_ADAPTERS_SHOWN:
        yield Row("", f"and {len(good) - MAX_ADAPTERS_SHOWN} more")


def _fit(fit: Fit | None) -> Iterator[Row]:
    if fit is None:
        return
    yield Row("KV cache", f"{size(fit.kv_bytes)}, {fit.kv_tokens:,} tokens")
    if fit.state_bytes:
        num_bytes = (fit.max_num_seqs + 1) * fit.state_bytes
        text = f"{fit.max_num_seqs} of {size(fit.state_bytes)} each, in {size(num_bytes)} of it"
        yield Row("states", text)
    context = f"{fit.max_model_len:,} tokens"
    if fit.max_model_len < fit.full_context:
        needed = -(-fit.kv_bytes * fit.full_context // fit.kv_tokens // MIB)
        yield Row(
            "longest context",
            f"{context}, shorter than the model's {fit.full_context:,}",
            Mark.HINT,
            f"give --kv-cache-mb {needed}",
        )
    typical = f"{fit.typical_streams} with {fit.typical_context:,} tokens each"
    full = f"{fit.full_streams} at full context ({context})"
    yield Row("streams at once", f"{typical}, {full}; at most {fit.max_num_seqs}")
    yield Row("largest step", f"{size(fit.step_bytes)} (estimated)")
    memory = "" if fit.is_one_memory else " on the device"
    each = f"of rank {fit.rank}, {size(fit.bytes_per_adapter)} each"
    resident = f"{fit.device_adapters} {each}, in {size(fit.adapter_bytes)}{memory}"
    host = f"{fit.host_adapters} more in {size(fit.host_bytes)} of host memory"
    yield Row("adapters", f"{resident}; {host}; the rest is loaded on demand")
