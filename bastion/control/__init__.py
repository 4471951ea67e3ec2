"""The door for the command line: a unix socket of the bastion that runs, and one writer of the log at a time."""
