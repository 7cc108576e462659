"""Denoisers: closed forms, the embedded model, and adapters for trained networks."""
