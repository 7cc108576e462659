"""Search on Ray workers, and go on after an interruption.

A model in memory travels to the workers once, through Ray's object store.  "local" starts a Ray of
this machine's own; "auto" joins the one that `ray start` left here, "ray://host:10001" one
elsewhere (workers/README.md).  Run it, press Ctrl-C, and run it again:

    python examples/cluster.py
"""

from pathlib import Path

import s3search
from s3search.models import digits
from s3search.run.found import SearchResult


def main(
    evaluations: int = 200, n_images: int = 1000, database: Path = Path("s3search.db")
) -> SearchResult:
    """Searches with two workers; all of it is kept in a database."""
    found = s3search.search(
        digits.load(labels="none"),
        reference=digits.images(),
        features=digits.features(),
        nfe=5,
        evaluations=evaluations,
        n_images=n_images,
        validation={"n_images": 4 * n_images, "finalists": 4},
        storage=f"sqlite:///{database}",
        name="digits on two workers",
        workers="local",
        cluster={"workers": 2},  # on GPUs: "gpus_per_worker": 1
    )
    print(found)
    print(f"s3search report '{found.name}' --storage {found.storage}")
    return found


if __name__ == "__main__":
    main()
