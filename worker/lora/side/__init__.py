"""Parts of adapters other than low-rank terms: DoRA, biases, embeddings, whole modules."""
