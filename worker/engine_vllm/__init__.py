"""The engine that lets vLLM compute. Only files that vLLM loads import it."""
