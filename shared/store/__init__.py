"""All code that accesses Redis: a package for each subject, and the Lua scripts that they run."""
