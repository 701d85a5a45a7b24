"""Writes what commands print into the page that shows them.

    python examples/choosing/page.py docs/choosing-figures.md

Runs each command of the page that is followed by a line `<!-- printed -->`, and puts its output
between that line and `<!-- end -->`. With words after the page, only commands that contain one of
them. `target/release/clipper` has to be there.
"""

import re
import subprocess
import sys
from pathlib import Path

PART = re.compile(r"```sh\n([^`]+)```\n\n<!-- printed -->\n.*?<!-- end -->\n", re.DOTALL)


def main():
    page, words = Path(sys.argv[1]), sys.argv[2:]

    def written(part):
        command = part[1].strip()
        if words and not any(word in command for word in words):
            return part[0]
        print(command, file=sys.stderr)
        said = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True)
        if said.returncode:
            print(f"  ended with {said.returncode}", file=sys.stderr)
        return f"```sh\n{part[1]}```\n\n<!-- printed -->\n{said.stdout.rstrip()}\n<!-- end -->\n"

    page.write_text(PART.sub(written, page.read_text()))


if __name__ == "__main__":
    main()
