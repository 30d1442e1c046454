"""Say what device torch can compute on; run by ComfyUI's own interpreter.

Prints one line of JSON: {"device": "cuda" | "mps" | "xpu" | "cpu", "name": ..., "fault": ...}.
A GPU counts when a sum on it comes out: a torch built for older cards sees a new one and fails.
"""

from __future__ import annotations

import json

__all__ = ["main"]


def main() -> None:
    """Print the first device that works."""
    import torch

    fault = ""
    for kind in ("cuda", "xpu", "mps"):
        backend = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
        if backend is None or not backend.is_available():
            continue
        name = "Apple GPU" if kind == "mps" else backend.get_device_name(0)
        try:
            works = (torch.ones(8, device=kind) * 2).sum().item() == 16
        except RuntimeError as error:
            fault = f"{name}: {str(error).splitlines()[0]}"
            continue
        if works:
            print(json.dumps({"device": kind, "name": name, "fault": ""}))
            return
    print(json.dumps({"device": "cpu", "name": "CPU", "fault": fault}))


if __name__ == "__main__":
    main()
