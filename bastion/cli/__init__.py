"""The command line: bastion serve, check-config, keys, users, sessions, db, play."""
