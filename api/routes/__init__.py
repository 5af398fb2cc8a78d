"""HTTP routes, one file per group. They check rights and call the other packages of `api`."""
