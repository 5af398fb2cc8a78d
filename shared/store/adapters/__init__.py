"""The registry of adapters, and where their versions are resident."""
