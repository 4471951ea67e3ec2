"""Who are you? Each way to sign in is one file; authenticator.py is the path that all of them share."""
