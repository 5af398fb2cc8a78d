"""The engine on top of vLLM. Modules that import vLLM are loaded only in vLLM's Python."""
