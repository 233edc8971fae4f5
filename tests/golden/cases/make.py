"""Writes what Pillow reads in the files of this folder, each of which stands for a kind of file that was once decoded
wrongly or rejected.

Made with Pillow 13.0.0 and numpy 2.4.  Run it from anywhere:  python make.py

It writes expected.json, a list with one object per file, as ../defects/make.py does.
"""

import importlib.util
import json
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
SPEC = importlib.util.spec_from_file_location("defects", HERE.parent / "defects/make.py")
DEFECTS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(DEFECTS)


def main():
    warnings.simplefilter("ignore")
    files = sorted(path for path in HERE.iterdir() if path.suffix not in (".py", ".json"))
    lines = ",\n".join(json.dumps(DEFECTS.describe(path.name, path.read_bytes())) for path in files)
    (HERE / "expected.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
