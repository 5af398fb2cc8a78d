"""The demo's task `sql`: questions about a shop, and SQL queries that answer them."""
