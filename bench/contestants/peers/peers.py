"""``--peers``: other libraries and providers that run the bundle's shared graph beside the run's own."""

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
        The names, each once, with the case that they have elsewhere.

    Raises:
        OptionError: a name is not known, or there is none.
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
    """Return the contestants of the peers that were asked for. One that cannot run here says so when it is started.

    Args:
        bundle: that holds the graphs.
        shared: what the run measures.
        peers: :func:`parse_peers`' result; ``all`` is OpenVINO, and each provider that this ONNX Runtime has beside the run's own.
        settings: of the run.
        isolated: whether contestants live in processes of their own.

    Raises:
        OptionError: a provider is the one that the run itself uses.
        BundleError: the bundle has no graph for a peer.
        BackendError: ONNX Runtime is missing.
    """
    names = list(peers)
    if ALL in names:
        every = [openvino_peer.NAME, *(providers.PREFIX + one for one in providers.other_providers(settings))]
        names = list(dict.fromkeys([*every, *(name for name in names if name != ALL)]))
    specs = []
    for name in names:
        if name == openvino_peer.NAME:
            specs.append(openvino_peer.openvino_spec(bundle, shared, settings))
            continue
        provider = name.removeprefix(providers.PREFIX)
        if shared.backend == "onnxruntime" and provider == providers.own_provider(settings):
            raise OptionError(
                f"--peers {name}: the run itself uses {provider}; leave it out, or run on another with --provider"
            )
        specs.append(providers.provider_spec(bundle, shared, provider, settings, isolated=isolated))
    return specs
