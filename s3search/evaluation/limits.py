"""How much may be asked for, where more would only never end."""

MOST_IMAGES = 10_000_000
"""Images of one measurement: a thousand times what distances are usually measured with."""
