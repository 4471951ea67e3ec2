"""What `make demo` runs, and images that are made without any registry."""
