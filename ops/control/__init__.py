"""The control process: periodic tasks of a pool, and its batches and webhook calls as arq jobs."""
