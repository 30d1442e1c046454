"""LoRA files: reading, recognising, converting, composing."""
