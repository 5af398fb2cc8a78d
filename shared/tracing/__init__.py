"""Spans and their export. Import only `start.py`: the rest needs OpenTelemetry."""
