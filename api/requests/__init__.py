"""Checks the fields of requests, and translates the requests into jobs."""
