"""Denoisers: closed forms, the embedded model, and adapters for trained networks."""

from s3search.models.outputs import (
    from_epsilon,
    from_sample,
    from_score,
    from_v,
    from_velocity,
)

__all__ = ["from_epsilon", "from_sample", "from_score", "from_v", "from_velocity"]
