"""Forms in which models write tool calls, each with its parser."""
