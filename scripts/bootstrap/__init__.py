"""What scripts/quickstart, scripts/test and scripts/check share: they prepare a machine and run.

Comes in: a Python >= 3.10 with its standard library, and a folder to keep things in. Goes out:

environment   the interpreter with ComfyUI's requirements, and the one for tests beside it
comfyui       ComfyUI itself: the pinned one, fetched and verified, or the user's, looked at
models        the user's models or stand-ins, and how ComfyUI is told where they are
server        a running ComfyUI
vllm          a vLLM on the processor with a tiny model, for tests
browser       Chromium or Chrome, for the tests of the page

Every part is checked at every start and repaired where it is not whole; nothing is trusted because
it was there before. `say.Problem` is the one error, and its text is the sentence the user reads.
Only the standard library is imported, save by standins.py, standin_weights.py, standin_faces.py,
standin_llm.py and datafiles.py, which run inside a prepared environment.
"""
