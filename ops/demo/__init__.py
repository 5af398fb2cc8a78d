"""The demo's model, its adapters, and their evaluation."""
