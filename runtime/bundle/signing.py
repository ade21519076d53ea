"""Signed bundles: an Ed25519 signature (RFC 8032) of ``manifest.json``, in a file beside it, and how it is checked.

The manifest holds the SHA-256 of every file that the runtime reads, so that one signature covers them all. A SHA-256 alone only
guards against damage: whoever can change a file can change the manifest. The signature is the 64 bytes that OpenSSL writes too::

    openssl pkeyutl -verify -pubin -inkey fleet.pub -rawin -in model.mtl/manifest.json -sigfile model.mtl/manifest.json.sig

It needs the cryptography package: ``pip install 'mtl-deploy[sign]'``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_deploy.runtime.errors import IntegrityError, OptionError
from mtl_deploy.runtime.files.reading import describe

from .manifest import FORMER, MANIFEST, SIGNATURE_FILE, Bundle, Manifest
from .writing import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VerifyKey = str | os.PathLike[str] | bytes
_SIGNATURE_BYTES, _KEY_BYTES = 64, 32
_MOST_KEY_BYTES = 64 << 10
_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


def load_signer(file: Path) -> Callable[[Path], None]:
    """Return a function that signs the manifest in a folder.

    Args:
        file: an Ed25519 private key in PEM (PKCS #8), such as ``openssl genpkey -algorithm ed25519`` writes; not encrypted.

    Raises:
        OptionError: it is not such a key, or the cryptography package is not installed.
    """
    key = _private_key(file)

    def sign(folder: Path) -> None:
        write_file(folder, SIGNATURE_FILE, key.sign((folder / MANIFEST).read_bytes()))

    return sign


def require_signed(bundle: Bundle | None, verify_key: VerifyKey, where: str) -> None:
    """Check that a bundle's manifest is the one that the holder of a key signed.

    Args:
        bundle: the bundle; None: the file lies in none, so that nothing vouches for it.
        verify_key: the public key: a PEM file, PEM text as bytes, or its 32 bytes.
        where: how errors call the file that should run.

    Raises:
        IntegrityError: there is no signature, or it is not that key's of this manifest.
        OptionError: ``verify_key`` is no Ed25519 public key, or the cryptography package is not installed.
    """
    key = _public_key(verify_key)
    from cryptography.exceptions import InvalidSignature

    if bundle is None:
        raise IntegrityError(f"{where}: a lone graph, which has no signature; load the bundle that it belongs to")
    file = bundle.path / SIGNATURE_FILE
    try:
        content = (bundle.path / MANIFEST).read_bytes()
        signatures = _signatures(bundle)
    except OSError as error:
        raise IntegrityError(f"{file}: {describe(error)}") from error
    if not signatures:
        raise IntegrityError(
            f"{bundle.path}: not signed (no {SIGNATURE_FILE} in it); export it with --sign, or do not use it"
        )

    def holds(signature: bytes) -> bool:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    if not any(len(signature) == _SIGNATURE_BYTES and holds(signature) for signature in signatures):
        raise IntegrityError(
            f"{file}: not this key's signature of {MANIFEST}; the bundle was changed after it was signed, or signed with another "
            "key: do not use it, or sign it again with mtl-export --sign"
        )
    # What is used must be what was signed, also where the file changed in between.
    if Manifest.from_dict(json.loads(content), str(bundle.path / MANIFEST)) != bundle.manifest:
        raise IntegrityError(f"{bundle.path / MANIFEST}: changed while it was read; load it again")


def _signatures(bundle: Bundle) -> list[bytes]:
    """Return a bundle's signature and, while it is replaced file by file, the displaced one: the manifest comes last."""
    found = []
    for folder in (bundle.path, bundle.path / FORMER):
        with suppress(FileNotFoundError), (folder / SIGNATURE_FILE).open("rb") as stream:
            found.append(stream.read(_SIGNATURE_BYTES + 1))
    return found


def _private_key(file: Path) -> Ed25519PrivateKey:
    _require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(file)
    try:
        key = load_pem_private_key(content, password=None)
    except Exception as error:  # ValueError, TypeError where there is a password, or an error of the library
        raise OptionError(f"{file}: not a private key in PEM without a password ({error}); {_MAKE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise OptionError(f"{file}: not an Ed25519 key; {_MAKE}")
    return key


def _public_key(given: VerifyKey) -> Ed25519PublicKey:
    _require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    name, content = ("verify_key", given) if isinstance(given, bytes) else (os.fspath(given), _read(Path(given)))
    if len(content) == _KEY_BYTES:
        return Ed25519PublicKey.from_public_bytes(content)
    try:
        key = load_pem_public_key(content)
    except Exception as error:  # ValueError, or an error of the library for kinds of keys that it does not know
        raise OptionError(
            f"{name}: not a public key in PEM ({error}); write it with: openssl pkey -in key.pem -pubout -out key.pub"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise OptionError(f"{name}: not an Ed25519 key; give the public half of the key that signs")
    return key


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_MOST_KEY_BYTES)
    except OSError as error:
        raise OptionError(f"{file}: {error.strerror or error}; give the path of a key") from error


def _require_library() -> None:
    if find_spec("cryptography") is None:
        raise OptionError("signatures need the cryptography package: pip install 'mtl-deploy[sign]'")
