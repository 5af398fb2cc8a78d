"""Memory for adapters: pages on the device, copies in host memory."""
