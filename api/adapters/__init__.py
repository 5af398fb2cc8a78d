"""What clients do with adapters: register, upload, try out, pin and list them."""
