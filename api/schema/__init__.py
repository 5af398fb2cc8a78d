"""Pydantic models of request and response bodies: types and bounds, no behaviour."""
