"""Inference, stage by stage: lungs, segment, group, classify, diagnose. Must not import ``carina.tasks``."""

from carina.pipeline.detector import Detection, Detector, detect

__all__ = ["Detection", "Detector", "detect"]
