"""The processes of the pool into which a chaos run injects faults."""
