"""Pydantic models of bodies. Only types and bounds, no behaviour."""
