"""May you enter? Pure rules on addresses and ownership, closed where in doubt."""
