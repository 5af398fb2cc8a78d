"""Limits of the engines over which the contract tests run."""

MAX_NUM_SEQS = 4
NUM_ADAPTERS = 2
"""Number of adapters for which the engines have memory."""
MAX_MODEL_LEN = 512
