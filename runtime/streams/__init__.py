"""Frames in at camera rate, results out in order: what waits, what runs when, and what is made of results before delivery.

A stream is opened with :meth:`mtl_deploy.runtime.Model.stream`.
"""

from .hooks import ExponentialSmoother, MajorityVote
from .result import Age, StreamResult
from .stream import Stream, StreamCounts

__all__ = ["Age", "ExponentialSmoother", "MajorityVote", "Stream", "StreamCounts", "StreamResult"]
