"""Checked bodies of requests as jobs: translated, refused or reported field by field."""
