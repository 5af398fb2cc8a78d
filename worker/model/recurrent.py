"""Recurrent layers, such as state spaces, linear attention and short convolutions.

The recurrent modules of transformers keep their states behind four methods of its cache. In a step,
the `forward` of such a module, a mixer, is called once for each group of sequences with equally
many tokens. Instead of transformers' cache it gets a view of the states of these sequences.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared.errors import SettingsError
from worker.upstream.caches import RecurrentStandIn

NO_SLOT = 0
"""Slot of the state before the first token of a sequence. It contains zeros."""
_STATE_CALLS = {
    *("get_conv_state", "update_conv_state"),
    *("get_recurrent_state", "update_recurrent_state"),
    *("get_linear_cache", "set_linear_cache"),
    # Functions of transformers 5.25 that call these methods for the mixer.
    *("causal_conv1d_forward", "mamba_scan_forward", "mamba2_scan_forward"),
}
"""Methods of transformers' cache that read and write states, and functions that call them."""
_CACHE = "cache"
"""Name of a mixer's argument for transformers' cache."""


class StateKey(NamedTuple):
    """Identifies one of the states of a sequence."""

    is_conv: bool
    """Whether the state is the last inputs of a convolution."""
    layer: int
    number: int
    """Number of the state among those of the same kind in its layer."""


class StateShape(NamedTuple):
    """Shape and dtype of one state of one sequence."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Size of the state in bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


StateShapes = Mapping[StateKey, StateShape]
"""Shapes of all states of a sequence. Empty for a model without recurrent layers."""


def bytes_per_state(shapes: StateShapes) -> int:
    """Return the size in bytes of all states of one sequence."""
    return sum(shape.num_bytes for shape in shapes.values())


class StatePool:
    """Memory for `num_slots` copies of a sequence's states, numbered from 1."""

    def __init__(self, shapes: StateShapes, num_slots: int, device: torch.device) -> None:
        """Allocate the memory. Raises SettingsError if the device doesn't have enough."""
        try:
            self._states = {
                key: torch.zeros(num_slots + 1, *shape, dtype=dtype, device=device)
                for key, (shape, dtype) in shapes.items()
            }
        except RuntimeError:  # torch.OutOfMemoryError on a GPU, plain RuntimeError on the CPU
            num_bytes = (num_slots + 1) * bytes_per_state(shapes)
            raise SettingsError(
                f"--kv-cache-mb: {num_bytes >> 20} MiB of states can't be allocated on {device}; "
                "set it lower"
            ) from None

    def copy(self, source: int, target: int) -> None:
        """Copy the states of slot `source` to slot `target`."""
        for states in self._states.values():
            states[target].copy_(states[source])

    def state(self, key: StateKey) -> Tensor | None:
        """Return a state of all slots, `[num_slots + 1, ...]`, or None if there is no such state.

        Slot NO_SLOT must not be written.
        """
        return self._states.get(key)


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences of a step that have equally many tokens and follow one another."""

    start: int
    """Index of the first token in the step."""
    size: int
    """Number of sequences."""
    length: int
    """Number of tokens of each sequence."""
    sources: Tensor
    """`[size]` int64: slots with the states before the step's tokens."""
    slots: Tensor
    """`[size]` int64: slots for the states after the step's tokens."""

    @property
    def end(self) -> int:
        """Index in the step after the group's last token."""
        return self.start + self.size * self.length


def groups_of(lengths: Sequence[int], sources: Tensor, slots: Tensor) -> tuple[Group, ...]:
    """Return the groups of a step.

    `lengths` has the number of tokens of each of the step's B sequences, in order. `sources` and
    `slots` are `[B]`; see `Group`.
    """
    groups: list[Group] = []
    first, start = 0, 0
    for length, equal in itertools.groupby(lengths):
        last = first + len(list(equal))
        part = slice(first, last)
        groups.append(Group(start, last - first, length, sources[part], slots[part]))
        first, start = last, groups[-1].end
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class RecurrentStep:
    """States and groups that the mixers of one forward pass use."""

    states: StatePool
    groups: tuple[Group, ...]
    entering: Callable[[int], AbstractContextManager[None]] | None = None
    """Returns the context in which a mixer computes the group with the given number.

    None if the groups need no context."""

    def enter(self, number: int) -> AbstractContextManager[None]:
        """Return the context in which a mixer computes group `number`."""
        return nullcontext() if self.entering is None else self.entering(number)


class _GroupStates(RecurrentStandIn):
    """States of the sequences of one group, with the methods of transformers' cache.

    A mixer may change the tensors that it gets. `store` copies them back.
    """

    def __init__(self, pool: StatePool, group: Group) -> None:
        self._pool = pool
        self._group = group
        self._states: dict[StateKey, Tensor] = {}

    def has_previous_state(self, *_: Any, **__: Any) -> bool:
        """Return True. The state before the first token is zeros."""
        return True

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Return the last inputs of a convolution, `[size, channels, width]`."""
        return self._get(StateKey(True, layer_idx, state_idx))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Return a recurrent state, `[size, ...]`."""
        return self._get(StateKey(False, layer_idx, state_idx))

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> Tensor:
        """Append inputs of a convolution, `[size, channels, n]`. Return the old and new ones."""
        key = StateKey(True, layer_idx, state_idx)
        old = self._get(key)
        assert old is not None, f"{key} wasn't found when the model was loaded"
        joined = torch.cat([old, conv_states.to(old.dtype)], -1)
        self._states[key] = joined[..., -old.shape[-1] :]
        return joined

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> Tensor:
        """Replace a recurrent state and return it."""
        self._states[StateKey(False, layer_idx, state_idx)] = recurrent_states
        return recurrent_states

    def get_linear_cache(self, layer_idx: int) -> Tensor | None:
        """Return MiniMax's recurrent state, `[size, ...]`."""
        return self.get_recurrent_state(layer_idx)

    def set_linear_cache(self, layer_idx: int, linear_cache: Tensor) -> None:
        """Replace MiniMax's recurrent state."""
        self.update_recurrent_state(linear_cache, layer_idx)

    def store(self) -> None:
        """Write the states to the slots of the group's sequences."""
        for key, state in self._states.items():
            stored = self._pool.state(key)
            assert stored is not None, f"{key} wasn't found when the model was loaded"
            stored[self._group.slots] = state.to(stored.dtype)

    def _get(self, key: StateKey) -> Tensor | None:
        if key not in self._states and (stored := self._pool.state(key)) is not None:
            self._states[key] = stored[self._group.sources]
        return self._states.get(key)


@dataclass(slots=True)
class _Recorder(RecurrentStandIn):
    """Records the shapes of the states that a mixer stores."""

    shapes: dict[StateKey, StateShape] = field(default_factory=dict)

    def has_previous_state(self, *_: Any, **__: Any) -> bool:
        """Return False: the sequence begins."""
        return False

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> None:
        """Return None: the sequence begins."""

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> None:
        """Return None: the sequence begins."""

    def update_conv_state(
        self,
        conv_states: Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **_: Any,
    ) -> Tensor:
        """Record the last inputs of a convolution and return them."""
        width = conv_kernel_size or conv_states.shape[-1]
        shape = (*conv_states.shape[1:-1], width)
        key = StateKey(True, layer_idx, state_idx)
        self.shapes[key] = StateShape(shape, conv_states.dtype)
        return conv_states

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> Tensor:
        """Record a recurrent state and return it."""
        shape = tuple(recurrent_states.shape[1:])
        key = StateKey(False, layer_idx, state_idx)
        self.shapes[key] = StateShape(shape, recurrent_states.dtype)
        return recurrent_states

    def get_linear_cache(self, layer_idx: int) -> None:
        """Return None: the sequence begins."""

    def set_linear_cache(self, layer_idx: int, linear_cache: Tensor) -> None:
        """Record MiniMax's recurrent state."""
        self.update_recurrent_state(linear_cache, layer_idx)


def mixers(model: nn.Module) -> list[nn.Module]:
    """Return the modules of `model` that read or write recurrent states."""
    return [module for module in model.modules() if _is_mixer(module)]


def _is_mixer(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    if code is None or _CACHE not in code.co_varnames:
        return False
    return not _STATE_CALLS.isdisjoint(code.co_names)


@contextmanager
def recording_states(model: nn.Module) -> Iterator[dict[StateKey, StateShape]]:
    """Let mixers record the shapes of their states. Yield the dictionary that gets the shapes."""
    recorder = _Recorder()
    patched = mixers(model)

    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        others = _other_arguments(original)

        def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return original(hidden_states, **others, **{_CACHE: recorder})

        return forward

    for module in patched:
        module.forward = recording(module.forward)
    try:
        yield recorder.shapes
    finally:
        for module in patched:
            del module.forward


def serve_mixers(model: nn.Module, current: Callable[[], RecurrentStep]) -> None:
    """Let the mixers of `model` compute packed passes. `current` returns the pass's step."""

    def serving(original: Callable[..., Any]) -> Callable[..., Any]:
        others = _other_arguments(original)

        def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            step = current()
            parts = []
            for number, group in enumerate(step.groups):
                rows = hidden_states[0, group.start : group.end]
                rows = rows.reshape(group.size, group.length, -1)
                states = _GroupStates(step.states, group)
                with step.enter(number):
                    out = original(rows, **others, **{_CACHE: states})
                states.store()
                parts.append(_packed(out, group))
            return _joined(parts)

        return forward

    for module in mixers(model):
        module.forward = serving(module.forward)


def _other_arguments(forward: Callable[..., Any]) -> dict[str, None]:
    """Return None for each required argument of a mixer but its input and its cache."""
    parameters = list(inspect.signature(forward).parameters.values())
    kinds = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return {
        parameter.name: None
        for parameter in parameters[1:]
        if parameter.default is parameter.empty
        and parameter.kind in kinds
        and parameter.name != _CACHE
    }


def _packed(output: Any, group: Group) -> Any:
    """Return a mixer's output `[size, length, ...]` as `[1, size * length, ...]`.

    If it is a tuple, this applies to each of its parts. A part without a row for each token is
    left out: models ignore such parts.
    """
    if isinstance(output, tuple):
        return tuple(_packed(part, group) for part in output)
    if not isinstance(output, Tensor) or output.shape[:2] != (group.size, group.length):
        return None
    return output.reshape(1, group.size * group.length, *output.shape[2:])


def _joined(parts: Sequence[Any]) -> Any:
    """Join the outputs of a step's groups, which `_packed` has returned."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(part is None for part in parts):  # in another group, it happened to have the right size
        return None
    if isinstance(first, tuple):
        return tuple(_joined(of_groups) for of_groups in zip(*parts, strict=True))
    return torch.cat(list(parts), 1)
