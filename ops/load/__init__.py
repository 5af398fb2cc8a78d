"""The load generator of `lorikeet bench`."""
