"""The story of one program: resolve, authorise, record, exec, bridge, close."""
