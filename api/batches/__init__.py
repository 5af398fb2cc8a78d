"""The batches that a key may see."""
