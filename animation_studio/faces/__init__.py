"""Faces: who is in a picture, and is it the character?

An engine finds, aligns and embeds faces (`engine`); references say what a character looks like;
scores against them become verdicts, verdicts a report.
"""
