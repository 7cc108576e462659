"""What a plan has done before each of its network calls, as a key that plans alike up to it share.

From the same noise, step noise included (`s3search.solvers.step_noise`), such plans call the
network with the same states at the same times, so that one prediction serves them all: with common
noise most schedules, which start at one level, share their first call.
"""

import hashlib
import json

from s3search.solvers.plan import Plan


def call_keys(plan: Plan, images: str = "") -> tuple[str | None, ...]:  # (E,)
    """A key for every call; None where weights per pixel have taken part, which are not compared.

    Keys are of the noise and conditions that go by the name ``images``, and of one process: a
    network is called by schedules of its own alone.
    """
    start = None if plan.start_map is None else json.dumps(plan.start_map.to_dict())
    digest = hashlib.sha256(repr((images, plan.noise_scale, start)).encode())
    keys: list[str | None] = []
    done = 0  # rows that the digest has
    for j, (row, time) in enumerate(zip(plan.evaluated, plan.network_times, strict=True)):
        if any(r <= row for r in plan.pixel_rows):
            return (*keys, *[None] * (plan.nfe - j))
        for r in range(max(1, done), row + 1):
            digest.update(plan.p[r, :r].tobytes() + plan.q[r, :j].tobytes())
            if plan.noise[r]:
                digest.update(b"noise" + plan.noise[r].tobytes())
            if plan.image is not None and plan.constant[r]:
                digest.update(plan.constant[r].tobytes() + plan.image.tobytes())
        done = row + 1
        digest.update(repr((row, time)).encode())
        keys.append(digest.hexdigest())
    return tuple(keys)
