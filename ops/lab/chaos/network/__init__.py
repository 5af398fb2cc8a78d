"""Networks that lose packets or reach another host."""
