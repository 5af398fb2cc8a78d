"""HTTP routes, a file for each group. They check rights and call the rooms below."""
