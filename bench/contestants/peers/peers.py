"""``--peers``: other libraries and providers that run the bundle's shared graph for comparison."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle
from mtl_deploy.runtime.errors import OptionError

from . import openvino as openvino_peer
from . import providers

ALL = "all"


def parse_peers(text: str) -> tuple[str, ...]:
    """Read ``--peers``: names such as ``openvino,onnxruntime:CUDA``, or ``all``.

    Returns:
        The names, each once, in the spelling that is used elsewhere.

    Raises:
        OptionError: a name is unknown, or none is given.
    """
    names = {
        name.lower(): name for name in (openvino_peer.NAME, ALL, *(providers.PREFIX + one for one in providers.KNOWN))
    }
    found = []
    for part in text.split(","):
        asked = part.strip()
        name = names.get(providers.short(asked).lower())
        if name is None:
            raise OptionError(
                f"--peers {asked or text}: no such peer; use {openvino_peer.NAME}, {providers.PREFIX}PROVIDER such as "
                f"{providers.PREFIX}CUDA (providers: {', '.join(providers.KNOWN)}), or {ALL}"
            )
        found.append(name)
    return tuple(dict.fromkeys(found))


def peer_specs(
    bundle: Bundle, shared: Artifact, peers: Sequence[str], settings: Settings, *, isolated: bool = True
) -> list[Spec]:
    """Return contestants for the peers that were asked for. One that cannot run here fails when it is started, with the reason.

    Args:
        bundle: the bundle that holds the graphs.
        shared: the artifact that the run measures.
        peers: as :func:`parse_peers` returns them; ``all`` is OpenVINO, and every provider of this ONNX Runtime, but not what
            the run itself uses.
        settings: the run's.
        isolated: whether contestants live in processes of their own.

    Raises:
        OptionError: a peer is what the run itself uses.
        BundleError: the bundle has no graph for a peer.
        BackendError: ONNX Runtime is missing.
    """
    names = list(peers)
    if ALL in names:
        own = settings.backend == openvino_peer.NAME
        every = [
            *([] if own else [openvino_peer.NAME]),
            *(providers.PREFIX + one for one in providers.other_providers(settings)),
        ]
        names = list(dict.fromkeys([*every, *(name for name in names if name != ALL)]))
    specs = []
    for name in names:
        if name == openvino_peer.NAME:
            if settings.backend == name:
                raise OptionError(f"--peers {name}: the run itself uses it; leave it out, or add --backend onnxruntime")
            specs.append(openvino_peer.openvino_spec(bundle, shared, settings))
            continue
        provider = name.removeprefix(providers.PREFIX)
        if shared.backend == "onnxruntime" and provider == providers.own_provider(settings):
            raise OptionError(
                f"--peers {name}: the run itself uses {provider}; leave it out, or run on another with --provider"
            )
        specs.append(providers.provider_spec(bundle, shared, provider, settings, isolated=isolated))
    return specs
