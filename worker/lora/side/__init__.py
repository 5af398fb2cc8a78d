"""Everything beside low-rank terms: DoRA, biases, embeddings, whole modules."""
