"""One answer from the admission of its job to the last byte that its client gets."""
