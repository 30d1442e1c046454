"""Custom types that travel between the nodes."""

from __future__ import annotations

from comfy_api.latest import io

__all__ = [
    "CATEGORY",
    "ComboType",
    "JudgementType",
    "Keypoints",
    "LookType",
    "PlanType",
    "ReferencesType",
    "SamplingType",
]

CATEGORY = "Animation Studio"

# animation_studio.registry.Look
LookType = io.Custom("ANIMSTUDIO_LOOK")
# animation_studio.registry.SamplingValues
SamplingType = io.Custom("ANIMSTUDIO_SAMPLING")
# What DWPose and OpenPose preprocessor nodes give: a list of OpenPose JSON objects, one a frame.
Keypoints = io.Custom("POSE_KEYPOINT")
# tuple[animation_studio.faces.References, ...], one for each character
ReferencesType = io.Custom("ANIMSTUDIO_REFERENCES")
# animation_studio.bridge.plans.MadePlan
PlanType = io.Custom("ANIMSTUDIO_PLAN")
# tuple[animation_studio.llm.Judgement, ...], one for each picture
JudgementType = io.Custom("ANIMSTUDIO_JUDGEMENT")
# What links into a combo of any options: V3's own Combo.Output is typed as its list of options,
# which ComfyUI 0.3.75 refuses at a V3 combo.
ComboType = io.Custom("COMBO")
