"""`python -m bench.campaign [NAME ...]`: run the long checks, all or those named, and tell at the end which held."""

import argparse
import subprocess
import sys

from bench.campaign.harness import ROOT

CHECKS = (
    "speed",
    "peers",
    "batching",
    "lane",
    "split",
    "shadow",
    "prometheus",
    "route_changes",
    "worker_kills",
    "worker_stops",
    "process_kills",
    "memory",
    "overload",
    "disconnects",
    "rolling_restart",
    "parent_kills",
    "datatypes",
    "golden",
    "spark_parity",
    "flights",
    "faults",
    "fuzz",
    "big_bodies",
    "many_models",
    "image",
    "clean_clone",
    "sabotage",
)


def main() -> int:
    """Run each check in a process of its own; return 0 only when all reached their bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*CHECKS, []], metavar="NAME", help=", ".join(CHECKS))
    names = parser.parse_args().names or CHECKS
    codes = {
        name: subprocess.run([sys.executable, "-m", f"bench.campaign.{name}"], cwd=ROOT, check=False) for name in names
    }
    for name, done in codes.items():
        print(f"{'reached    ' if done.returncode == 0 else 'NOT REACHED'}  {name}")
    return int(any(done.returncode for done in codes.values()))


if __name__ == "__main__":
    sys.exit(main())
