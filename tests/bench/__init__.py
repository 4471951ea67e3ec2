"""`make bench`: what README says of speed and memory, measured. Not timed tests: no figure fails anything.

A module here is one table: `NAMES`, what can be measured one by one, and `measure(names)`, which does that and returns
the table. It is listed in `__main__`.
"""
