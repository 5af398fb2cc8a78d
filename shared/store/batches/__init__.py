"""Records of batches and files."""
