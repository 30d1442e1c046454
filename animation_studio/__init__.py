"""The library under the Animation Studio node pack.

Importable without ComfyUI. Its rooms: `registry` (the cast and its settings), `lora` (LoRA files),
`control` (reference pictures and poses), `runs` (running prompts and recording how a picture was
made) and `bridge`, the only one that imports ComfyUI. Rooms import the registry and each other's
public names only; nothing here imports the nodes.
"""

__version__ = "0.1.0"
