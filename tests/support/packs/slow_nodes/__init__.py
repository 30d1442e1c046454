"""A ComfyUI pack for tests: a node that takes its time, and one that fails."""

import time

import comfy.model_management
from comfy_api.latest import ComfyExtension, io


class Wait(io.ComfyNode):
    """Passes pictures on after `seconds`; an interruption ends it at once."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="Test_Wait",
            inputs=[io.Image.Input("images"), io.Float.Input("seconds")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images, seconds):
        """Wait."""
        print("Test_Wait waits", flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)
        return io.NodeOutput(images)


class Fail(io.ComfyNode):
    """Fails with the text it is given."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="Test_Fail",
            inputs=[io.Image.Input("images"), io.String.Input("text")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images, text):
        """Fail."""
        raise RuntimeError(text)


class SlowNodes(ComfyExtension):
    """The nodes of this pack."""

    async def get_node_list(self):
        """Return them."""
        return [Wait, Fail]


async def comfy_entrypoint():
    """Return the extension."""
    return SlowNodes()
