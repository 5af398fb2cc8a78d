"""Checks that every key in Redis has an owner or a lifetime. Each kind of key needs a rule."""
