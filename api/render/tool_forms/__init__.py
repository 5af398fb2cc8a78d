"""Forms in which models write tool calls: a parser for each. `worker/text/` has the grammars."""
