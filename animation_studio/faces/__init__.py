"""Faces: who is in a picture, and is it the character?

An engine finds, aligns and embeds faces (`engine`, chosen in `engines`); `references` say what a
character looks like; scores against them (`similarity`, `assignment`) become verdicts (`judge`),
and verdicts a report (`report`) and pictures of it (`sheet`). `calibration` proposes a threshold.

Import from the modules: the combos of nodes ask `engines` for names at ComfyUI's start, and all of
the room together would be a third of what the pack may cost there.
"""
