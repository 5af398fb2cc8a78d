"""`lorikeet adapters evaluate`: grades the answers of an adapter's versions to given cases."""
