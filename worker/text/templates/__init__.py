"""Chat templates, those of adapters in processes with limits."""
