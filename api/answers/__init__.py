"""Produces answers: from the admission of a job to the last byte sent to its client."""
