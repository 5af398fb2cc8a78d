"""Pytest plugins that replace a peer's server by Lorikeet, in the process of the peer's tests."""
