"""The options of contestants beside the bundle's own: peers, the checkpoint's own network, and engines that are built anew."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_deploy.runtime.errors import OptionError

if TYPE_CHECKING:  # --help reads this file
    from mtl_deploy.bench.contestants.pair import Pair, Settings
    from mtl_deploy.bench.contestants.specs import Spec

_MOST_BUILDS = 100


@dataclass(frozen=True)
class PeerOptions:
    """Contestants beside the bundle's own.

    Attributes:
        peers: as ``--peers`` names them; None: none.
        checkpoint: of the PyTorch network; None: it is not measured.
        model: ``MODULE:FACTORY`` of the checkpoint's network.
        trust_pickle: whether the checkpoint may run code.
        builds: how often engines are built anew; 1: the bundle's own are measured.
    """

    peers: str | None
    checkpoint: Path | None
    model: str | None
    trust_pickle: bool
    builds: int


def add_options(made: argparse.ArgumentParser) -> None:
    """Add the options, in a group of their own."""
    group = made.add_argument_group("other ways to run the network, in turn with the rest")
    group.add_argument(
        "--peers", metavar="NAME,...", help="openvino, onnxruntime:PROVIDER such as onnxruntime:CUDA, or all"
    )
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help="PyTorch's forward, eager and torch.compile")
    group.add_argument("--model", metavar="MODULE:FACTORY", help="the checkpoint's network, as for mtl-export")
    group.add_argument("--trust-pickle", action="store_true", help="let the checkpoint run code, as for mtl-export")
    group.add_argument(
        "--builds",
        type=int,
        default=1,
        metavar="N",
        help="build the engines N times, since builds differ (default: 1)",
    )


def read_options(arguments: argparse.Namespace) -> PeerOptions:
    """Return the options, checked.

    Raises:
        OptionError: one that cannot be used.
    """
    if not 1 <= arguments.builds <= _MOST_BUILDS:
        raise OptionError(f"--builds {arguments.builds}: use 1 to {_MOST_BUILDS}")
    if arguments.processes is not None and arguments.processes < arguments.builds:
        raise OptionError(
            f"--builds {arguments.builds}: each start of the contestants runs another build, and --processes "
            f"{arguments.processes} are fewer; use --processes {arguments.builds} or more"
        )
    if arguments.checkpoint is None and (arguments.model is not None or arguments.trust_pickle):
        option = "--model" if arguments.model is not None else "--trust-pickle"
        raise OptionError(f"{option} is about a checkpoint; name it with --checkpoint")
    if arguments.checkpoint is not None and not arguments.checkpoint.exists():
        raise OptionError(f"--checkpoint {arguments.checkpoint}: no such file")
    if arguments.peers is not None:
        from mtl_deploy.bench.contestants.peers.peers import parse_peers

        parse_peers(arguments.peers)
    return PeerOptions(arguments.peers, arguments.checkpoint, arguments.model, arguments.trust_pickle, arguments.builds)


def names_openvino(options: PeerOptions) -> bool:
    """Return whether OpenVINO was asked for by name, as what the run is compared with."""
    if options.peers is None:
        return False
    from mtl_deploy.bench.contestants.peers.openvino import NAME
    from mtl_deploy.bench.contestants.peers.peers import parse_peers

    return NAME in parse_peers(options.peers)


def peer_contestants(pair: Pair, settings: Settings, options: PeerOptions, *, isolated: bool) -> list[Spec]:
    """Return the contestants beside the bundle's own that were asked for.

    Raises:
        OptionError: a peer is what the run itself uses.
        BundleError: the bundle has no graph for a peer.
        BackendError: ONNX Runtime is missing.
    """
    specs: list[Spec] = []
    if options.checkpoint is not None:
        from mtl_deploy.bench.contestants.peers.pytorch import baseline_specs

        specs += baseline_specs(
            pair.bundle,
            options.checkpoint,
            options.model,
            options.trust_pickle,
            settings,
            precision=pair.shared.precision,
            engines=pair.engines,
        )
    if options.peers is not None:
        from mtl_deploy.bench.contestants.peers.peers import parse_peers, peer_specs

        specs += peer_specs(pair.bundle, pair.shared, parse_peers(options.peers), settings, isolated=isolated)
    return specs


def peer_notes(pair: Pair, options: PeerOptions) -> tuple[str, ...]:
    """Return what casts doubt on figures of these contestants before anything runs."""
    if options.checkpoint is None or not options.checkpoint.is_file():
        return ()
    from mtl_deploy.bench.contestants.peers.pytorch import checkpoint_warning

    found = checkpoint_warning(pair.bundle, options.checkpoint)
    return () if found is None else (found,)
