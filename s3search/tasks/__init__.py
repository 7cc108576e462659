"""What a command does beside searching."""
