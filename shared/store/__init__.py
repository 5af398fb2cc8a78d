"""All code that accesses Redis, with one package for each subject."""
