"""What one engine may take."""

from dataclasses import dataclass

from shared.errors import SettingsError
from worker.model.kv_cache import BLOCK_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Budgets of one engine."""

    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    max_model_len: int | None = None
    """None: the model's, or what the KV cache holds if that is less."""
    kv_cache_bytes: int = 2 << 30
    adapter_bytes: int = 1 << 30
    caches_prefixes: bool = True
    """Whether requests share the KV blocks of equal beginnings."""

    def longest(self, of_model: int, num_blocks: int) -> int:
        """The longest sequence, in tokens; `num_blocks` are what the KV cache has.

        Raises:
            SettingsError: the model, or the KV cache, doesn't allow what is wanted.
        """
        in_cache = num_blocks * BLOCK_SIZE
        wanted = self.max_model_len
        if wanted is None:
            if in_cache < BLOCK_SIZE:
                raise SettingsError("--kv-cache-mb is too small for one block of the KV cache")
            return min(of_model, in_cache)
        if wanted > of_model:
            raise SettingsError(f"--max-model-len {wanted} is over the model's {of_model}")
        if wanted > in_cache:
            raise SettingsError(
                f"--max-model-len {wanted} needs a larger --kv-cache-mb: it holds {in_cache} tokens"
            )
        return wanted
