"""What stands in for transformers' cache in the modules of a model."""

from typing import NoReturn

import transformers

from shared.errors import ModelRejected


class CacheStandIn:
    """Base of the objects that modules get instead of transformers' cache.

    A name that a stand-in doesn't define raises ModelRejected, because its answer isn't known. The
    check of a model at start computes every module, so a worker doesn't start with such a model.
    """

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python looks for optional methods, such as __deepcopy__
            raise AttributeError(name)
        raise ModelRejected(
            f"the model uses `{name}` of the cache of transformers {transformers.__version__}, "
            "which the native engine doesn't know; `pip install lorikeet-serve` installs a tested "
            "version of transformers, or try --engine vllm"
        )


class RecurrentStandIn(CacheStandIn):
    """The methods that recurrent modules call besides those that read and write states."""

    def is_recording_past(self, layer_idx: int) -> bool:
        """Return False, because old states aren't kept."""
        return False

    def get_recurrent_states_to_keep(self, layer_idx: int | None = None) -> int:
        """Return 0, because old states aren't kept."""
        return 0

    def increase_count(self, layer_idx: int, state_idx: int) -> None:
        """Do nothing, because the scheduler counts tokens."""
