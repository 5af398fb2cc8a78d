"""The worker's connection to vLLM: one engine core in a separate process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest
from vllm.v1.engine.core_client import EngineCoreClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor import Executor

from shared.errors import EngineBroken

CLOSED = "vLLM's engine core is closed"
LOST = "vLLM's engine core has ended; see its messages in the log"


class EngineCore:
    """Sends requests to vLLM's engine core, and receives the tokens of each of its steps.

    Adapters may be added on any thread. All other methods must be called from one thread.
    """

    def __init__(self, args: EngineArgs, *, on_lost: Callable[[], None]) -> None:
        """Start the engine core and wait until it has loaded the model.

        `on_lost` is called on any thread when the engine core has ended by itself. It should end
        this process, so that other workers continue the requests.

        Raises:
            Exception: vLLM can't serve the model; the type depends on the reason.
        """
        config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
        self._client = EngineCoreClient.make_client(
            multiprocess_mode=True,
            asyncio_mode=False,
            vllm_config=config,
            executor_class=Executor.get_class(config),
            log_stats=True,
        )
        self.config = config
        """vLLM's configuration."""
        self._on_lost = on_lost
        self._is_closed = False
        # vLLM's socket may be used by one thread at a time.
        self._sending = threading.Lock()
        # Without requests, nothing is read from the engine core, so that its end isn't noticed.
        threading.Thread(target=self._watch, name="engine-core-watch", daemon=True).start()
        self.max_model_len: int = config.model_config.max_model_len
        """Longest sequence in tokens."""
        self.dtype: Any = config.model_config.dtype
        """Torch dtype of weights and activations."""
        self.device: str = config.device_config.device_type
        """Kind of device: cuda or cpu."""
        self.block_size: int = config.cache_config.block_size
        """Number of tokens per block of the KV cache."""
        self.num_blocks: int = config.cache_config.num_gpu_blocks
        """Number of blocks of the KV cache."""
        self.kv_bytes: int = config.cache_config.kv_cache_memory_bytes or 0
        """Size of the KV cache in bytes; 0 if vLLM has chosen it."""
        self.max_num_seqs: int = config.scheduler_config.max_num_seqs
        """Maximum number of running requests."""
        self.max_num_batched_tokens: int = config.scheduler_config.max_num_batched_tokens
        """Maximum number of tokens of a step."""

    @property
    def reads_images(self) -> bool:
        """Whether vLLM has loaded the parts of the model that read images."""
        model = self.config.model_config
        limits = model.multimodal_config if model.is_multimodal_model else None
        return limits is not None and limits.get_limit_per_prompt("image") > 0

    def add(self, request: EngineCoreRequest) -> None:
        """Queue a request."""
        with self._sending, self._alive():
            self._client.add_request(request)

    def abort(self, request_ids: list[str]) -> None:
        """End requests. Unknown ids are ignored."""
        with self._sending, self._alive():
            self._client.abort_requests(request_ids)

    def next_outputs(self) -> EngineCoreOutputs:
        """Wait for the next step's outputs. Raises EngineBroken if the engine core has ended."""
        with self._alive():
            return self._client.get_output()

    def add_lora(self, request: LoRARequest) -> None:
        """Load an adapter between two steps. Blocks until the adapter is loaded.

        Raises:
            Exception: the adapter can't be loaded. The engine core goes on.
        """
        with self._sending, self._alive():
            self._check_open()
            self._client.add_lora(request)

    def remove_lora(self, lora_id: int) -> None:
        """Free the slot of an adapter between two steps. Blocks until the slot is free."""
        with self._sending, self._alive():
            self._check_open()
            self._client.remove_lora(lora_id)

    def ask_workers(self, method: str, *args: Any) -> list[Any]:
        """Call a method of each of vLLM's workers, and return their answers."""
        with self._sending, self._alive():
            answers: list[Any] = self._client.collective_rpc(method, args=args)
        return answers

    def close(self) -> None:
        """End the engine core. Calls that wait for an answer raise EngineBroken."""
        self._is_closed = True
        self._client.shutdown()
        for waiting in list(self._client.utility_results.values()):
            if not waiting.done():
                waiting.set_exception(EngineBroken(CLOSED))

    def lost(self) -> None:
        """Call `on_lost`, because the engine core has ended by itself or is about to end.

        Has no effect after `close`.
        """
        if not self._is_closed:
            self._on_lost()

    def _check_open(self) -> None:
        """Raise `EngineBroken` if `close` was called, because the engine core wouldn't answer."""
        if self._is_closed:
            raise EngineBroken(CLOSED)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Run the `with` block, and report if the engine core has ended.

        If the block raises EngineDeadError, call `lost` and raise EngineBroken instead.
        """
        try:
            yield
        except EngineDeadError:
            self.lost()
            raise EngineBroken(LOST) from None

    def _watch(self) -> None:
        processes = self._client.resources.engine_manager.processes
        wait([process.sentinel for process in processes])
        self.lost()
