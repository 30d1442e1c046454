"""The bridge: the only room that imports ComfyUI.

It finds files in ComfyUI's folders, patches and encodes with ComfyUI's own functions, and offers
the configuration as the running ComfyUI sees it. Nodes call it; other rooms get from it what they
need as plain values or small protocols.
"""
