"""A pool on this machine: supervisor, Redis, cores, GPUs and data folder of `lorikeet up`."""
