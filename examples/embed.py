"""Embedding the runtime in an application: load once, predict often.

python examples/embed.py model.mtl photo.jpg
"""

from __future__ import annotations

import sys

from mtl_deploy.runtime import load

with load(sys.argv[1]) as model:
    for task, prediction in model.predict(sys.argv[2]).items():
        print(f"{task}: {prediction}")
