"""One pool as a front end sees it: its parts, cached models and readiness."""
