"""The interface of engines, and the native engine: scheduler, KV blocks, sampler."""
