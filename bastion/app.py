"""The only wiring: configuration -> running -> drained."""
