"""Checks the machine for programs that tests run; as root on Debian it installs the missing ones, else it says how.

Runs before the first test: a missing part fails, it never skips. Must not import anything beyond the standard library.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

JDK_MIN = 17


def has_jdk() -> bool:
    """Tell whether `javac` is here and new enough."""
    home = os.environ.get("JAVA_HOME")
    javac = shutil.which("javac", path=f"{home}/bin") if home else shutil.which("javac")
    if javac is None:
        return False
    said = subprocess.run([javac, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r"javac (\d+)", said.stdout + said.stderr)
    return found is not None and int(found[1]) >= JDK_MIN


def has(program: str) -> bool:
    """Tell whether a program is on the path."""
    return shutil.which(program) is not None


def missing() -> list[str]:
    """Return the Debian packages whose programs are not here."""
    packages = [program for program in ("curl", "git", "valgrind", "wrk") if not has(program)]
    if not has("h2load"):
        packages.append("nghttp2-client")
    if not has_jdk():
        packages.append("openjdk-17-jdk-headless")
    if not (has("prometheus") and has("promtool")):
        packages.append("prometheus")
    return packages


def install(packages: list[str]) -> None:
    """Install Debian packages, without starting their services. Raises CalledProcessError."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    print(f"tests need {', '.join(packages)}: installing with {' '.join(command)}", flush=True)
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
    subprocess.run([*command, "-qq"], env=environment, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Return 0 when everything is here, 1 after saying what is missing."""
    packages = missing()
    if packages and os.geteuid() == 0 and Path("/etc/debian_version").exists() and has("apt-get"):
        try:
            install(packages)
        except subprocess.CalledProcessError as error:
            print(f"apt-get failed: {error}", file=sys.stderr)
        packages = missing()
    if packages:
        print(
            "The tests run programs that are missing here. On Debian:\n"
            f"    sudo apt-get install --no-install-recommends {' '.join(packages)}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
