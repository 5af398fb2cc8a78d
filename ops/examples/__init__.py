"""Example clients for users to copy."""
