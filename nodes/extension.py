"""The pack as ComfyUI loads it: the list of nodes, and what is set up once."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..animation_studio.bridge import environment, folders, gpu_routes, recovery, routes
from .accepted import JudgeRound, UntilAccepted
from .control import Control
from .face_report import SaveReport
from .faces import CalibrateThreshold, ConsistencyFilter, FaceReferences
from .gpu import ResumeLLM, VRAMGuard
from .judge import Judge, Refine
from .look import CharacterLoraLoader
from .plan import PlanFromText, PromptWriter
from .pose import Pose, SavePose
from .quality import QualityPreset
from .take import SaveTake
from .until import JudgeTry, UntilConsistent

__all__ = ["AnimationStudio"]


class AnimationStudio(ComfyExtension):
    """Animation Studio's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes, and prepare what they stand on."""
        folders.register_model_folders()
        routes.register()
        gpu_routes.register()
        environment.warn_about_attention()
        recovery.begin()
        return [
            CharacterLoraLoader,
            QualityPreset,
            Control,
            Pose,
            SavePose,
            FaceReferences,
            ConsistencyFilter,
            CalibrateThreshold,
            UntilConsistent,
            JudgeTry,
            PromptWriter,
            PlanFromText,
            Judge,
            Refine,
            UntilAccepted,
            JudgeRound,
            VRAMGuard,
            ResumeLLM,
            SaveReport,
            SaveTake,
        ]
