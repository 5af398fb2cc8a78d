"""Paged attention with an online softmax, as in Dao: FlashAttention-2 (arXiv 2307.08691).

The context of a sequence with one query token (decode) is split into spans, so that a long context
occupies many programs. Spans have a fixed length, so that a sequence's result doesn't depend on the
other sequences of the batch. Sequences with several query tokens (prefill) are split into blocks of
queries.
"""

import triton
import triton.language as tl

from worker.kernels.triton.device.precision import FLOAT32

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def softcapped(scores, softcap):
    """Return `softcap * tanh(scores / softcap)`, computed so that it cannot overflow."""
    decay = tl.exp(-2.0 * tl.abs(scores) / softcap)
    bounded = softcap * (1.0 - decay) / (1.0 + decay)
    return tl.where(scores < 0.0, -bounded, bounded)


@triton.jit
def sink_weight(sinks, head, maxima):
    """Return `exp2(sink * LOG2_E - maxima)`, the softmax weight of each head's attention sink."""
    return tl.exp2(tl.load(sinks + head).to(tl.float32) * LOG2_E - maxima)


@triton.jit
def first_seen(position, WINDOW: tl.constexpr, CHUNK: tl.constexpr):
    """Return the first position that a query at `position` attends to."""
    if WINDOW > 0:
        first = tl.maximum(position - WINDOW + 1, 0)
    elif CHUNK > 0:
        first = position // CHUNK * CHUNK
    else:
        first = position * 0
    return first


@triton.jit
def positions_seen(
    first_position,
    end,
    span,
    HAS_SPANS: tl.constexpr,
    SPAN: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Return `(first, stop)`: the queries attend to positions `first` to `stop - 1`.

    The queries are at positions `first_position` to `end - 1`. With HAS_SPANS, the result has only
    positions inside the span number `span`.
    """
    begin = first_seen(first_position, WINDOW, CHUNK)
    if HAS_SPANS:
        begin = tl.maximum(begin, span * SPAN)
        end = tl.minimum(end, (span + 1) * SPAN)
    return begin, end


@triton.jit(
    do_not_specialize=["table_stride", "num_spans"],
    do_not_specialize_on_alignment=[
        "sinks",
        "blocks",
        "query_starts",
        "context_lens",
        "block_tables",
    ],
)
def attention_kernel(
    query,
    key_cache,
    value_cache,
    sinks,
    out,
    span_outs,
    span_maxima,
    span_sums,
    blocks,
    query_starts,
    context_lens,
    block_tables,
    query_stride_token,
    query_stride_head,
    table_stride,
    num_spans,
    scaling,
    softcap,
    IS_DECODE: tl.constexpr,
    HAS_SPANS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_KEY_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
):
    """Compute `softmax(softcap(q k^T * scaling) + mask) v` for a block of queries and a key head.

    GROUP query heads share the key head. For each of its queries, a program has one row for each of
    these query heads. With HAS_SPANS, the program stores the maxima, sums and outputs of its span
    for `merge_spans_kernel`. Without HAS_SPANS, the program adds the heads' sinks and writes `out`.

    `query` is `[T, num_heads, KEY_DIM]`. A cache is `[num_blocks, BLOCK_SIZE, NUM_KV_HEADS, D]`,
    with KEY_DIM or VALUE_DIM as D. `sinks` is `[num_heads]`; it isn't read without HAS_SINKS.
    `query_starts` `[B + 1]`, `context_lens` `[B]` and `block_tables` `[B, M]` are as in
    `AttentionBatch`. `blocks` `[I, 2]` has a pair for each block of queries: its sequence, and its
    first query in that sequence. Decoding doesn't read it.

    Grid: sequences (decode) or blocks of queries (prefill), key heads, spans.
    """
    QUERIES: tl.constexpr = 1 if IS_DECODE else BLOCK_ROWS // GROUP
    sequence = tl.program_id(0) if IS_DECODE else tl.load(blocks + 2 * tl.program_id(0))
    first_query = 0 if IS_DECODE else tl.load(blocks + 2 * tl.program_id(0) + 1)
    start = tl.load(query_starts + sequence)
    num_queries = tl.load(query_starts + sequence + 1) - start
    # A batch may have sequences of both kinds, and each kind has a launch of its own.
    is_other_kind = num_queries > 1 if IS_DECODE else num_queries == 1
    if is_other_kind | (first_query >= num_queries):
        return

    context_len = tl.load(context_lens + sequence)
    first_position = context_len - num_queries + first_query
    span = tl.program_id(2)
    end = tl.minimum(first_position + QUERIES, context_len)
    begin, end = positions_seen(first_position, end, span, HAS_SPANS, SPAN, WINDOW, CHUNK)
    if begin >= end:
        return
    begin = begin // BLOCK_KEYS * BLOCK_KEYS

    row = tl.arange(0, BLOCK_ROWS)
    kv_head = tl.program_id(1)
    head = kv_head * GROUP + row % GROUP
    is_row = (row < QUERIES * GROUP) & (first_query + row // GROUP < num_queries)
    position = first_position + row // GROUP
    token = (start + first_query + row // GROUP).to(tl.int64)
    key_dim = tl.arange(0, BLOCK_KEY_DIM)
    value_dim = tl.arange(0, BLOCK_VALUE_DIM)
    q = tl.load(
        query
        + token[:, None] * query_stride_token
        + head[:, None] * query_stride_head
        + key_dim[None, :],
        mask=is_row[:, None] & (key_dim < KEY_DIM)[None, :],
        other=0.0,
    )
    table = block_tables + sequence.to(tl.int64) * table_stride

    maxima = tl.full((BLOCK_ROWS,), float("-inf"), dtype=tl.float32)
    sums = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    outs = tl.zeros((BLOCK_ROWS, BLOCK_VALUE_DIM), dtype=tl.float32)
    for first in range(begin, end, BLOCK_KEYS):
        key_position = first + tl.arange(0, BLOCK_KEYS)
        is_key = key_position < end
        block = tl.load(table + key_position // BLOCK_SIZE, mask=is_key, other=0).to(tl.int64)
        place = (block * BLOCK_SIZE + key_position % BLOCK_SIZE) * NUM_KV_HEADS + kv_head
        k = tl.load(
            key_cache + place[None, :] * KEY_DIM + key_dim[:, None],
            mask=is_key[None, :] & (key_dim < KEY_DIM)[:, None],
            other=0.0,
        )
        scores = tl.dot(q, k, input_precision=FLOAT32) * scaling
        if HAS_SOFTCAP:
            scores = softcapped(scores, softcap)
        is_visible = is_key[None, :] & (key_position[None, :] <= position[:, None])
        if WINDOW > 0:
            is_visible = is_visible & (key_position[None, :] > position[:, None] - WINDOW)
        elif CHUNK > 0:
            is_visible = is_visible & (key_position[None, :] >= position[:, None] // CHUNK * CHUNK)
        scores = tl.where(is_visible, scores * LOG2_E, float("-inf"))

        new_maxima = tl.maximum(maxima, tl.max(scores, 1))
        # The maximum of a row that has seen no key yet is -inf, and -inf - -inf would be NaN.
        shift = tl.where(new_maxima == float("-inf"), 0.0, new_maxima)
        weights = tl.exp2(scores - shift[:, None])
        decay_of_old = tl.exp2(maxima - shift)
        sums = sums * decay_of_old + tl.sum(weights, 1)
        maxima = new_maxima
        v = tl.load(
            value_cache + place[:, None] * VALUE_DIM + value_dim[None, :],
            mask=is_key[:, None] & (value_dim < VALUE_DIM)[None, :],
            other=0.0,
        )
        outs = outs * decay_of_old[:, None]
        outs = tl.dot(weights.to(v.dtype), v, acc=outs, input_precision=FLOAT32)

    is_out = is_row[:, None] & (value_dim < VALUE_DIM)[None, :]
    if HAS_SPANS:
        place = (sequence.to(tl.int64) * NUM_KV_HEADS * GROUP + head) * num_spans + span
        tl.store(span_maxima + place, maxima, mask=is_row)
        tl.store(span_sums + place, sums, mask=is_row)
        tl.store(span_outs + place[:, None] * VALUE_DIM + value_dim[None, :], outs, mask=is_out)
    else:
        place = token * (NUM_KV_HEADS * GROUP) + head
        if HAS_SINKS:
            sums += sink_weight(sinks, head, maxima)
        sums = tl.where(is_row, sums, 1.0)
        tl.store(
            out + place[:, None] * VALUE_DIM + value_dim[None, :],
            (outs / sums[:, None]).to(out.dtype.element_ty),
            mask=is_out,
        )


@triton.jit(
    do_not_specialize=["num_spans"],
    do_not_specialize_on_alignment=["sinks", "query_starts", "context_lens"],
)
def merge_spans_kernel(
    sinks,
    out,
    span_outs,
    span_maxima,
    span_sums,
    query_starts,
    context_lens,
    num_spans,
    HAS_SINKS: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_SPANS: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
):
    """Merge the results of each decoding sequence's spans, and write the attention output.

    With `w_s = exp2(maxima_s - max(maxima))`, `out = sum_s outs_s w_s / sum_s sums_s w_s`. With
    HAS_SINKS, the weight of the head's sink is added to the denominator.
    Grid: sequences, heads.
    """
    sequence = tl.program_id(0)
    start = tl.load(query_starts + sequence)
    if tl.load(query_starts + sequence + 1) - start != 1:
        return
    context_len = tl.load(context_lens + sequence)
    first_span = first_seen(context_len - 1, WINDOW, CHUNK) // SPAN
    end_span = (context_len + SPAN - 1) // SPAN

    value_dim = tl.arange(0, BLOCK_VALUE_DIM)
    is_value = value_dim < VALUE_DIM
    head = tl.program_id(1)
    row = (sequence.to(tl.int64) * NUM_HEADS + head) * num_spans
    maximum = tl.full((1,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((1,), dtype=tl.float32)
    merged = tl.zeros((BLOCK_VALUE_DIM,), dtype=tl.float32)
    for first in range(first_span // BLOCK_SPANS * BLOCK_SPANS, end_span, BLOCK_SPANS):
        span = first + tl.arange(0, BLOCK_SPANS)
        is_span = (span >= first_span) & (span < end_span)
        maxima = tl.load(span_maxima + row + span, mask=is_span, other=float("-inf"))
        sums = tl.load(span_sums + row + span, mask=is_span, other=0.0)
        outs = tl.load(
            span_outs + (row + span)[:, None] * VALUE_DIM + value_dim[None, :],
            mask=is_span[:, None] & is_value[None, :],
            other=0.0,
        )
        new_maximum = tl.maximum(maximum, tl.max(maxima, 0))
        decay_of_old = tl.exp2(maximum - new_maximum)
        weights = tl.exp2(maxima - new_maximum)
        total = total * decay_of_old + tl.sum(sums * weights, 0)
        merged = merged * decay_of_old + tl.sum(outs * weights[:, None], 0)
        maximum = new_maximum

    if HAS_SINKS:
        total += sink_weight(sinks, head, maximum)
    place = (start.to(tl.int64) * NUM_HEADS + head) * VALUE_DIM
    tl.store(out + place + value_dim, (merged / total).to(out.dtype.element_ty), mask=is_value)
