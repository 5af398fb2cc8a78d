"""Pydantic models of request and response bodies: types and bounds, no behaviour.

Most response bodies are built as dicts elsewhere and must match the models here. Each request field
also needs a row in `ops/lab/generate/conformance/table.json`.
"""
