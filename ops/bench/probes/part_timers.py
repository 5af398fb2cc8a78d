"""Timers for the parts of an engine's step."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import nn

from worker.engine import model_runner
from worker.model.fused_stack import FusedStack
from worker.model.loader import LoadedModel

LAYERS, HEAD, MODEL, SAMPLING, BATCH = "layers", "head", "model", "sampling", "batch"


class PartTimers:
    """Times the parts of an engine's step by patching functions of the model and the engine.

    The functions stay patched until the process ends.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)
        stack: Any = loaded.model.base_model
        self._calls_of = {LAYERS: 1, HEAD: 1, MODEL: 1, SAMPLING: 1, BATCH: 1}
        if isinstance(stack, FusedStack):
            stack.run_layers = self._timed(LAYERS, stack.run_layers)  # type: ignore[method-assign]
        else:
            self._calls_of[LAYERS] = len(stack.layers)
            for layer in stack.layers:
                self._time_module(LAYERS, layer)
        self._time_module(HEAD, loaded.model.get_output_embeddings())
        self._time_module(MODEL, loaded.model)
        for part, function in ((SAMPLING, "sample_and_read"), (BATCH, "build_step")):
            setattr(model_runner, function, self._timed(part, getattr(model_runner, function)))

    def last_ms(self, steps: int) -> dict[str, float]:
        """Return each part's mean duration per step, in ms, over the last `steps` steps."""
        return {
            part: 1000 * sum(self._seconds[part][-calls * steps :]) / steps
            for part, calls in self._calls_of.items()
        }

    def _time_module(self, part: str, module: nn.Module) -> None:
        module.forward = self._timed(part, module.forward)

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        seconds = self._seconds[part]

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = call(*args, **kwargs)
            seconds.append(time.perf_counter() - start)
            return result

        return timed
