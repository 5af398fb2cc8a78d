"""The control process: runs a pool's periodic tasks, and batches and webhook calls as arq jobs."""
