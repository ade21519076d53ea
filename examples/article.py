"""The article's network at full size: write a checkpoint with fresh weights, export it, and print its time and memory.

    python examples/article.py --out /tmp/article
    mtl-bench /tmp/article/model.mtl

Fresh weights are as good as trained ones for measuring time and memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from mtl_deploy.export.networks import article

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SIZES = (1, 1, 5)  # age, gender, race


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write model.pt and model.mtl to")
    parser.add_argument(
        "--depth", type=int, choices=tuple(BLOCKS), default=50, help="depth of the ResNet (default: 50)"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_checkpoint(arguments.out / "model.pt", arguments.depth)
    seconds, peak = export(arguments.out)
    graphs = sorted(path.relative_to(arguments.out) for path in (arguments.out / "model.mtl").rglob("*.onnx"))
    print(
        f"ResNet-{arguments.depth} to {len(graphs)} verified graphs: {seconds:.0f} s, at most {peak / 1e9:.2f} GB of memory"
    )


def write_checkpoint(path: Path, depth: int) -> None:
    """Save the state_dict of a fresh network in the article's layout."""
    import torch

    torch.manual_seed(0)
    features = 2048 if depth >= 50 else 512
    heads = tuple(article.Head(features, size) for size in SIZES)
    torch.save(article.build(article.Layout(depth >= 50, BLOCKS[depth], 1, 64, heads)).state_dict(), path)


def export(folder: Path) -> tuple[float, int]:
    """Run mtl-export in a separate process; return its seconds and its peak resident memory in bytes."""
    code = "import sys; from mtl_deploy.export.cli import main; sys.exit(main(sys.argv[1:]))"
    started = time.perf_counter()
    options = ["--output", str(folder / "model.mtl"), "--force", "--engine", "none"]
    arguments = [sys.executable, "-c", code, str(folder / "model.pt"), *options]
    _, status, usage = os.wait4(os.posix_spawn(sys.executable, arguments, os.environ), 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(code)
    return time.perf_counter() - started, 1024 * usage.ru_maxrss  # Linux counts kibibytes


if __name__ == "__main__":
    main()
