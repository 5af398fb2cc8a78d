"""Native kernels for CPUs. Structures here mirror those of `src/` field by field."""
