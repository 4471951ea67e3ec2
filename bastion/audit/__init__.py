"""What is remembered: the audit log (a file, standard output, the `events` table) and the rows of `sessions`."""
