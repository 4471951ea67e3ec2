"""What is remembered? Audit events to files and the database, and the rows of sessions."""
