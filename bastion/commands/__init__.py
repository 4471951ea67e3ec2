"""What was run? Keystrokes and the screen they are echoed on -> commands."""
