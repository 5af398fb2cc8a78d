"""Official clients as clients of a chaos run."""
