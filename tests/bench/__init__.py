"""`make bench`: the bastion against what a user would pick instead, both sides in one run. Not a timed test."""
