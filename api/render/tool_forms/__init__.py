"""Forms in which models write tool calls, with a parser each. `worker/text/` has their grammars."""
