"""The TensorRT that is installed: TensorRT 8.6, 10, 11 or TensorRT-RTX. All differences between them are in this folder.

Only how to start them is elsewhere (:mod:`~mtl_deploy.runtime.backends.tensorrt.start`).

The graph carries the precision. TensorRT 10, 11 and TensorRT-RTX build it strongly typed; 8.6 gets the flags that fit the
graph, and for each layer the type that the graph gives it. See docs/engines.md for the differences and their sources.
"""

from .importing import EXTRAS, Library, import_library, installed
from .release import LIBRARIES, TITLES, Release, version_numbers

__all__ = ["EXTRAS", "LIBRARIES", "TITLES", "Library", "Release", "import_library", "installed", "version_numbers"]
