"""How other servers are asked: verified, never for longer or for more than is good, and left alone when they fail."""
