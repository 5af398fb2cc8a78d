"""Official client libraries, used as clients of a chaos run."""
