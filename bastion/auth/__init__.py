"""Who are you? Credentials in, an Identity or a Refusal out."""
