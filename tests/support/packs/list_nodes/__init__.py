"""A ComfyUI pack for tests: any value, lists of values and of pictures, a VAE that shows what a
test says."""

import json

import torch
from comfy_api.latest import ComfyExtension, io


class Value(io.ComfyNode):
    """The value of a JSON text, for any input; NaN is one, too."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="Test_Value",
            category="tests",
            inputs=[io.String.Input("json")],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, **inputs):
        """Read it."""
        return io.NodeOutput(json.loads(inputs["json"]))


class Values(io.ComfyNode):
    """The elements of a JSON list, one after the other."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="Test_Values",
            category="tests",
            inputs=[io.String.Input("json")],
            outputs=[io.AnyType.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, **inputs):
        """Read them."""
        return io.NodeOutput(json.loads(inputs["json"]))


class Flat(io.ComfyNode):
    """Batches of one colour, as a list: "batch height width channels level, ..."."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="Test_Flat",
            category="tests",
            inputs=[io.String.Input("pictures")],
            outputs=[io.Image.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, pictures):
        """Make them."""
        return io.NodeOutput([cls.batch(*one.split()) for one in pictures.split(",")])

    @classmethod
    def batch(cls, *words):
        """Return one batch, float [batch, height, width, channels]."""
        return torch.full([int(word) for word in words[:4]], float(words[4]))


class ScriptedVae:
    """Its nth decoding shows the pictures whose indices are in the nth of `rows`, then the last."""

    def __init__(self, pictures, rows):
        self.pictures, self.rows = pictures, rows

    def decode(self, samples):
        """Return float [batch, height, width, channels]. The log counts how often."""
        print("ScriptedVae decodes", flush=True)
        row = self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]
        return torch.cat([self.pictures[row[at % len(row)]] for at in range(len(samples))])


class ScriptedVaeNode(io.ComfyNode):
    """Such a VAE; `shown` "0 1, 2" is pictures 0 and 1 first, then 2. `mark` is not read."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="Test_ScriptedVAE",
            category="tests",
            inputs=[
                io.Image.Input("images"),
                io.String.Input("shown"),
                io.String.Input("mark", optional=True),
            ],
            is_input_list=True,
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, images, shown, **_):
        """Make it."""
        rows = [[int(index) for index in row.split()] for row in shown[0].split(",")]
        return io.NodeOutput(ScriptedVae(images, rows))


class ListNodes(ComfyExtension):
    """The nodes of this pack."""

    async def get_node_list(self):
        """Return them."""
        return [Value, Values, Flat, ScriptedVaeNode]


async def comfy_entrypoint():
    """Return the extension."""
    return ListNodes()
