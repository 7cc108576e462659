"""Fuzzes every reader, or those that are named: `python -m tests.formats.fuzz N [READER ...]`.

An input is known by its reader and its number; `--first` begins at another one.  A folder given
with `--keep` gets one input of each fault.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import warnings
from pathlib import Path

from tests.formats.fuzz.readers import READERS
from tests.formats.fuzz.running import run, write

_MEMORY = 16 * 2**30
"""Bytes of addresses: who makes a reader ask for more is a fault, not the end of the machine."""


def main() -> int:
    """One line of JSON per reader; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, help="inputs of each reader")
    parser.add_argument("readers", nargs="*", help=", ".join(READERS))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    warnings.simplefilter("error")  # a warning on the terminal is no sentence either
    n_faults = 0
    for name in asked.readers or READERS:
        reader = READERS[name]
        with tempfile.TemporaryDirectory() as folder:
            found = run(name, reader, Path(folder), range(asked.first, asked.first + asked.n))
        faults = [
            {
                "what": f"{each.what} {each.example}".strip(),
                "where": each.where,
                "inputs": len(n),
                "first": n[0],
            }
            for each, n in found.faults.items()
        ]
        line = {
            "reader": name,
            "inputs": found.inputs,
            "read": found.read,
            "seconds": round(found.seconds, 1),
            "slowest": round(found.slowest, 2),
            "faults": faults,
        }
        print(json.dumps(line), flush=True)  # noqa: T201
        n_faults += len(faults)
        if asked.keep is not None:
            samples = [*reader.samples()]
            for fault in faults:
                chance = random.Random(f"{name} {fault['first']}")
                sample = chance.choice(samples)
                write(
                    asked.keep / name / f"{fault['first']}-{Path(sample.name).name}",
                    sample.hostile(chance),
                )
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
