"""Print the names in cuda-bindings' driver module, and its enums' members, as JSON. Runs in a process of its own."""

from __future__ import annotations

import json

from cuda.bindings import driver

print(json.dumps({name: sorted(getattr(getattr(driver, name), "__members__", {})) for name in dir(driver)}))
