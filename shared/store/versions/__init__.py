"""Versions of adapters on trial, pinned adapters, and the audit log."""
