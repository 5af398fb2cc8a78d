"""The contract between front ends, workers and control. It needs neither torch nor FastAPI."""
