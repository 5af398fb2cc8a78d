"""The pool's state for the console: collected, rated, sent as a stream."""
