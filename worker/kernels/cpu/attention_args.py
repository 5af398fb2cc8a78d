"""ctypes mirror of `src/attention/attention.h`. Types and order of the fields must match."""

import ctypes
from ctypes import c_float, c_int64, c_void_p

from worker.kernels.interface import AttentionBatch, Prepared


class AttentionArgs(ctypes.Structure, Prepared):
    """ctypes mirror of `AttentionArgs` in attention.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("query", "out", "keys", "values")),
        *((name, c_void_p) for name in ("block_tables", "query_starts", "context_lens")),
        ("sinks", c_void_p),
        *((name, c_int64) for name in ("query_stride", "table_stride", "num_seqs")),
        *((name, c_int64) for name in ("num_heads", "num_kv_heads", "key_dim", "value_dim")),
        *((name, c_int64) for name in ("block_size", "window", "chunk")),
        *((name, c_float) for name in ("scaling", "softcap")),
    ]


def prepare_batch(batch: AttentionBatch) -> AttentionArgs:
    """Return the arguments that all layers share. The batch's tensors must outlive the result."""
    return AttentionArgs(
        block_tables=batch.block_tables.data_ptr(),
        table_stride=batch.block_tables.stride(0),
        query_starts=batch.query_starts.data_ptr(),
        context_lens=batch.context_lens.data_ptr(),
        num_seqs=len(batch.context_lens),
    )
