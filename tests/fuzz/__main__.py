"""Fuzz for as long as wanted: `python -m tests.fuzz picture --minutes 30`. What fails is written to a file."""

import argparse
import sys
import time
from pathlib import Path

from app.contract.preprocessing import use_one_thread_per_picture
from tests.fuzz.fuzzer import Defect, Fuzzer
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="folder that the corpus grows in [.fuzz]")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args()
    use_one_thread_per_picture()
    target, seeds = TARGETS[given.target]
    end = time.monotonic() + 60 * given.minutes
    found = 0
    while time.monotonic() < end:
        try:
            fuzzer = Fuzzer(target, seeds(), seed=given.seed + found, folder=given.corpus / given.target)
            fuzzer.run(inputs=sys.maxsize, until=lambda: time.monotonic() > end)
            sys.stdout.write(f"{fuzzer.runs:,} inputs, a corpus of {len(fuzzer.corpus):,}, {found} defects\n")
        except Defect as defect:
            found += 1
            file = given.corpus / f"{given.target}-defect-{given.seed}-{found}"
            file.write_bytes(defect.data)
            sys.stdout.write(f"{file}: {defect}\n")
    return 1 if found else 0


sys.exit(main())
