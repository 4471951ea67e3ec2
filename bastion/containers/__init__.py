"""Where is it, and how does one run something in it? The only room that imports docker."""
