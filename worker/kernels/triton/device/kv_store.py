"""Writes a step's keys and values to their slots in the cache."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize_on_alignment=["slots"])
def store_kernel(
    key,
    value,
    key_cache,
    value_cache,
    slots,
    key_stride_token,
    key_stride_head,
    value_stride_token,
    value_stride_head,
    NUM_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Set `key_cache[slots[t]] = key[t]` and `value_cache[slots[t]] = value[t]`.

    Grid: tokens, blocks of BLOCK columns.
    """
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)

    is_key = column < NUM_HEADS * KEY_DIM
    place = token * key_stride_token + column // KEY_DIM * key_stride_head + column % KEY_DIM
    row = tl.load(key + place, mask=is_key)
    tl.store(key_cache + slot * (NUM_HEADS * KEY_DIM) + column, row, mask=is_key)

    is_value = column < NUM_HEADS * VALUE_DIM
    place = (
        token * value_stride_token + column // VALUE_DIM * value_stride_head + column % VALUE_DIM
    )
    row = tl.load(value + place, mask=is_value)
    tl.store(value_cache + slot * (NUM_HEADS * VALUE_DIM) + column, row, mask=is_value)
