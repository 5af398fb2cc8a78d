"""Records of batches and files. Their rules are in `lua/batches/` and `lua/files/`."""
