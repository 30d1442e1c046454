"""A ComfyUI pack for tests: a VAE whose pictures show real people, which person by the seed.

No checkpoint that draws a face is on the package registries. So the decoder stands in: each latent
of a batch picks one of the pictures it was given, by what is in the latent. Sampling before it and
judging after it are the real ones.
"""

import hashlib
import json
from pathlib import Path

import comfy.clip_vision
import folder_paths
import numpy as np
import torch
from comfy_api.latest import ComfyExtension, io
from PIL import Image


class FaceVAE:
    """Decodes each latent [4, h, w] of a batch to one of `pictures` (float [1, H, W, 3])."""

    def __init__(self, pictures):
        self.pictures = pictures

    def decode(self, samples):
        """Return float [batch, H, W, 3]. The log counts how often."""
        print("FaceVAE decodes", flush=True)
        return torch.cat([self.pictures[self.choice(latent)] for latent in samples])

    def choice(self, latent):
        """Return which picture a latent [4, h, w] shows."""
        digest = hashlib.sha256(latent.float().cpu().numpy().tobytes()).digest()
        return int.from_bytes(digest[:4], "big") % len(self.pictures)


class FaceVAENode(io.ComfyNode):
    """The stand-in VAE of the pictures that it is given."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Test_FaceVAE",
            category="tests",
            inputs=[io.Image.Input("images")],
            is_input_list=True,
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, images):
        return io.NodeOutput(FaceVAE(images))


class Pictures(io.ComfyNode):
    """Pictures of ComfyUI's input folder as a list, of any sizes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Test_Pictures",
            category="tests",
            inputs=[io.String.Input("names")],
            outputs=[io.Image.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, names):
        return io.NodeOutput([cls.read(name) for name in names.split()])

    @classmethod
    def read(cls, name):
        with Image.open(folder_paths.get_annotated_filepath(name)) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
        return torch.from_numpy(pixels)[None]


CLIP_CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_act": "quick_gelu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_channels": 3,
    "num_hidden_layers": 3,
    "image_size": 224,
    "patch_size": 16,
    "projection_dim": 32,
}


class ClipVision(io.ComfyNode):
    """ComfyUI's own CLIP vision class, small and with random weights."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Test_ClipVision",
            category="tests",
            inputs=[io.Int.Input("seed")],
            outputs=[io.ClipVision.Output()],
        )

    @classmethod
    def execute(cls, seed):
        config = Path(folder_paths.get_temp_directory(), "clip_config.json")
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps(CLIP_CONFIG), encoding="utf-8")
        model = comfy.clip_vision.ClipVisionModel(str(config))
        random = torch.Generator().manual_seed(seed)
        weights = {
            name: torch.ones_like(weight)
            if "norm" in name and name.endswith("weight")
            else torch.randn(weight.shape, generator=random).to(weight.dtype)
            / max(1, weight[0].numel()) ** 0.5
            for name, weight in model.get_sd().items()
            if not name.endswith("position_ids")
        }
        model.load_sd(weights)
        return io.NodeOutput(model)


class Odd(io.ComfyNode):
    """Pictures that something went wrong with: NaN, one colour, alpha, tiny."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Test_OddPicture",
            category="tests",
            inputs=[
                io.Combo.Input("kind", options=["nan", "grey", "alpha", "tiny", "noise", "crowd"]),
                io.Image.Input("images"),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, kind, images):
        if kind == "nan":
            odd = images.clone()
            odd[0, 0, 0, 0] = float("nan")
        elif kind == "grey":
            odd = torch.full_like(images, 0.5)
        elif kind == "alpha":
            odd = torch.cat([images, torch.rand_like(images[..., :1])], dim=-1)
        elif kind == "tiny":
            odd = images[:, :16, :16]
        elif kind == "crowd":
            odd = images.repeat(1, 4, 5, 1)
        else:
            odd = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
        return io.NodeOutput(odd)


class Extension(ComfyExtension):
    """The pack."""

    async def get_node_list(self):
        return [FaceVAENode, Pictures, ClipVision, Odd]


async def comfy_entrypoint():
    """Return the pack."""
    return Extension()
