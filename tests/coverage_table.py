"""Print the lines that no test runs in its own process, from slipcover's JSON (`make coverage`)."""

import json
import sys
from pathlib import Path

SHOWN = 20


def main() -> None:
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    missing = {name: len(of["missing_lines"]) for name, of in files.items()}
    lines = {name: missing[name] + len(of["executed_lines"]) for name, of in files.items()}
    total, left = sum(lines.values()), sum(missing.values())
    print(f"coverage: {total - left} of {total} lines of {len(files)} files are run by tests in their own process")
    untested = sorted(name for name in files if missing[name] == lines[name] > 1)
    print(f"run by no test there: {', '.join(untested) or 'none'}")
    for name in sorted(set(files) - set(untested), key=lambda name: -missing[name])[:SHOWN]:
        print(f"  {missing[name]:4} of {lines[name]:4} lines not run: {name}")


if __name__ == "__main__":
    main()
