"""The control process: periodic tasks of a pool, and arq jobs."""
