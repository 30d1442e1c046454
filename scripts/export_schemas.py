#!/usr/bin/env python3
"""Write the JSON Schemas in web/schemas from the models they describe.

    python scripts/export_schemas.py

Needs the pack's own requirements and NumPy. A test says when a schema is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from animation_studio.faces.report import json_schema

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "web" / "schemas" / "consistency_report-1.schema.json"

if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json_schema(), encoding="utf-8", newline="\n")
    print(TARGET.relative_to(ROOT))
