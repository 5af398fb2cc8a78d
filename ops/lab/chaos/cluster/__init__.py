"""The processes of the pool that a chaos run hurts."""
