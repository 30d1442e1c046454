#!/usr/bin/env python3
"""Write the JSON Schemas in web/schemas from the models they describe.

    python scripts/export_schemas.py

Needs the pack's own requirements and NumPy. A test says when a schema is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from animation_studio.faces.report import json_schema as of_consistency
from animation_studio.llm.report import json_schema as of_judgement

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "web" / "schemas"
SCHEMAS = {"consistency_report-1": of_consistency, "judgement_report-1": of_judgement}

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, schema in SCHEMAS.items():
        target = FOLDER / f"{name}.schema.json"
        target.write_text(schema(), encoding="utf-8", newline="\n")
        print(target.relative_to(ROOT))
