"""What `make demo` runs: a bastion in front of four containers, and images that are made without any registry.

__main__     up and down
engine       finds a Docker engine, or has one installed and started
dockerd      an engine of the demo's own; runs as root
containers   the image and the containers
server       keys, configuration, users, `bastion serve`
images       file trees for `docker import`
processes    those that the demo started, found again after a crash
terminal     what the user reads
"""
