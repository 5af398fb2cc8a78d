"""Limits of one engine."""

from dataclasses import dataclass

from shared.errors import SettingsError
from worker.model.cache_shape import CacheShape, CacheSize
from worker.model.kv_cache import BLOCK_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Limits of one engine's batches, sequences and memory."""

    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    max_model_len: int | None = None
    """Maximum length of a sequence in tokens. None: the model's limit, or the KV cache's size."""
    kv_cache_bytes: int = 2 << 30
    adapter_bytes: int = 1 << 30
    caches_prefixes: bool = True
    """Whether requests with a common prefix share the prefix's KV blocks."""
    forces_tokens: bool = True
    """Whether a token is output without a step if the grammar allows no other token."""
    looks_up_tokens: bool = True
    """Whether steps verify tokens that prompt lookup proposes."""

    def cache_size(self, shape: CacheShape, model_limit: int) -> CacheSize:
        """Return the sizes of the cache. `model_limit` is the model's maximum context in tokens.

        Raises:
            SettingsError: see `CacheShape.divide`.
        """
        return shape.divide(
            self.kv_cache_bytes,
            max_num_seqs=self.max_num_seqs,
            max_model_len=min(model_limit, self.max_model_len or model_limit),
        )

    def longest(self, model_limit: int, num_blocks: int) -> int:
        """Return the maximum length of a sequence in tokens, at most the model's limit.

        Raises:
            SettingsError: `max_model_len` exceeds the model's limit or the size of the KV cache, or
                the KV cache has no block.
        """
        cache_limit = num_blocks * BLOCK_SIZE
        if self.max_model_len is None:
            if cache_limit < BLOCK_SIZE:
                raise SettingsError("--kv-cache-mb is too small for one block of the KV cache")
            return min(model_limit, cache_limit)
        if self.max_model_len > model_limit:
            raise SettingsError(
                f"--max-model-len {self.max_model_len} exceeds the model's limit of {model_limit}"
            )
        if self.max_model_len > cache_limit:
            raise SettingsError(
                f"--max-model-len {self.max_model_len} needs a larger --kv-cache-mb: "
                f"it holds {cache_limit} tokens"
            )
        return self.max_model_len
