"""FINE: cross-level attention that refines a low-level feature map before it is fused with a high-level one."""

from fine_edge.fusion.config import FineConfig
from fine_edge.fusion.fine import Fine

__all__ = ["Fine", "FineConfig"]
