"""What was seen? asciicast v2 files, written before the bytes are passed on."""
