"""What a worker does before it registers: checks, sizes, loading, warm-up."""
