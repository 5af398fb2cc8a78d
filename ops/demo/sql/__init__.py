"""The demo's task of writing SQL queries."""
