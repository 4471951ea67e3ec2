"""The SSH server: the only room that imports asyncssh."""
