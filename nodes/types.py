"""Custom types that travel between the nodes."""

from __future__ import annotations

from comfy_api.latest import io

__all__ = ["CATEGORY", "Keypoints", "LookType", "ReferencesType", "SamplingType"]

CATEGORY = "Animation Studio"

# animation_studio.registry.Look
LookType = io.Custom("ANIMSTUDIO_LOOK")
# animation_studio.registry.SamplingValues
SamplingType = io.Custom("ANIMSTUDIO_SAMPLING")
# What DWPose and OpenPose preprocessor nodes give: a list of OpenPose JSON objects, one a frame.
Keypoints = io.Custom("POSE_KEYPOINT")
# tuple[animation_studio.faces.References, ...], one for each character
ReferencesType = io.Custom("ANIMSTUDIO_REFERENCES")
