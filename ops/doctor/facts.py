"""Facts about a machine and a planned `lorikeet up`. The report is made from them.

Sizes are in bytes. A `problem` is the reason why something can't be used, or None. A `fix` is a
sentence, without its full stop, that says how to solve a problem or where to find out more.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Reason why the server wouldn't start, or would run worse than it could."""

    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that Lorikeet writes files to."""

    purpose: str
    path: str
    free: int | None
    """Free space of the disk that contains the folder, or None if it can't be read."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of this machine."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Hardware and programs of this machine."""

    cpu: str
    cores: int
    """Cores that this process may use."""
    instruction_sets: tuple[str, ...]
    """Instruction sets of this CPU that the kernels can use."""
    memory: int
    """Memory of the machine, or of its container."""
    free_memory: int
    gpus: tuple[Gpu, ...]
    compiler: str | None
    """Path of a C++ compiler; None if there is none."""
    python: str
    torch: str | None
    """Version of torch; None if torch isn't installed."""
    cuda: str | None
    """Version of CUDA that torch was built with, or None without torch or CUDA."""
    has_triton: bool
    vllm: str | None
    """Path of a Python interpreter that has vLLM; None if there is none."""
    folders: tuple[Folder, ...]
    missing_packages: tuple[str, ...]
    versions: tuple[str, ...] = ()
    """Packages of which only some versions were tested, with the installed version of each."""
    untested: Problem | None = None
    """Which of them have another version; None if all versions were tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """The Redis server that `lorikeet up` would use."""

    url: str | None
    """URL without its password. None if `lorikeet up` starts a Redis of its own."""
    server: str
    """Name and version of the server program."""
    details: tuple[str, ...] = ()
    problem: Problem | None = None
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Processes that `lorikeet up` would start, and how they would compute."""

    engine: str
    dtype: str
    devices: tuple[str, ...]
    """Device of each worker."""
    threads: int
    """CPU threads of each worker."""
    kernels: str
    kernels_problem: Problem | None = None
    """Reason why workers would use slower kernels; None if they would use the fastest."""
    url: str
    gpu_problem: str | None = None
    """Reason why workers wouldn't use the GPUs of the machine; None if there is no such reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """The base model, as its configuration describes it."""

    source: str
    """The model as the command line names it: a folder, a hub id or `demo`."""
    place: str
    """Text that says where the model's files are, or where they will come from."""
    architecture: str = ""
    num_parameters: int = 0
    weight_bytes: int = 0
    max_model_len: int = 0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFacts:
    """One adapter of --adapters."""

    name: str
    source: str
    rank: int | None = None
    num_bytes: int = 0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What fits into the memory of one worker."""

    kv_bytes: int
    kv_tokens: int
    max_model_len: int
    """Longest context in tokens that fits: `full_context`, or less if the KV cache is smaller."""
    full_context: int
    """Longest context in tokens that the model and the settings allow."""
    typical_context: int
    max_num_seqs: int
    """Number of sequences that run at once. Recurrent states may limit it, too."""
    state_bytes: int = 0
    """Size in bytes of one sequence's recurrent states. 0 for a model without them."""
    step_bytes: int
    adapter_bytes: int
    host_bytes: int
    is_one_memory: bool
    """Whether the worker's device is the CPU, so that device and host share one memory."""
    bytes_per_adapter: int
    """Size in bytes of an adapter of rank `rank` that changes all linears."""
    rank: int

    @property
    def full_streams(self) -> int:
        """Number of sequences of `max_model_len` tokens that run at once."""
        return min(self.max_num_seqs, self.kv_tokens // self.max_model_len)

    @property
    def typical_streams(self) -> int:
        """Number of sequences of `typical_context` tokens that run at once."""
        return min(self.max_num_seqs, self.kv_tokens // self.typical_context)

    @property
    def device_adapters(self) -> int:
        """Number of adapters of rank `rank` that are resident at once."""
        return self.adapter_bytes // self.bytes_per_adapter

    @property
    def host_adapters(self) -> int:
        """Number of further adapters of rank `rank` that fit into host memory."""
        return self.host_bytes // self.bytes_per_adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the report shows. A fact that couldn't be determined is None."""

    running: str | None = None
    """URL of the user's running server that has the planned port and data folder."""
    machine: Machine | None = None
    redis: RedisFacts | None = None
    plan: Plan | None = None
    base: BaseFacts | None = None
    adapters: tuple[AdapterFacts, ...] = ()
    skips_bad_adapters: bool = False
    """Whether `lorikeet up` starts without the adapters that can't be served."""
    fit: Fit | None = None
    problems: tuple[Problem, ...] = ()
    """Other reasons why `lorikeet up` wouldn't start, such as a wrong setting."""
    hints: tuple[Problem, ...] = ()
    """Other remarks, such as checks that couldn't be completed."""
