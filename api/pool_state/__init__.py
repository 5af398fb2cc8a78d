"""The pool's state for the console: reads it, computes rates, and sends it as a stream."""
