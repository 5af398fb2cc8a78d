"""The engine on top of vLLM. Only the Python environment with vLLM can import all modules."""
