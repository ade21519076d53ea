"""Signed bundles: a runtime that is given a key runs what its holder signed, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mtl_deploy.export.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle import signing
from mtl_deploy.runtime.bundle.manifest import MANIFEST, SIGNATURE_FILE, open_bundle
from mtl_deploy.runtime.bundle.signing import load_signer, require_signed
from mtl_deploy.runtime.bundle.writing import copy_files, updating, write_manifest, writing
from mtl_deploy.runtime.errors import IntegrityError, OptionError, UnsignedWarning
from mtl_deploy.runtime.files import disk

MakeBundle = Callable[..., Path]
IMAGE = np.zeros((8, 8, 3), np.uint8)


def write_key(file: Path, key: object = None, encryption: KeySerializationEncryption | None = None) -> Path:
    key = key or ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())  # type: ignore[attr-defined]
    file.write_bytes(pem)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    file.with_suffix(".pub").write_bytes(public)
    return file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "fleet.pem")


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_suffix(".pub")


@pytest.fixture
def signed(make_bundle: MakeBundle, key: Path) -> Path:
    folder = make_bundle()
    load_signer(key)(folder)
    return folder


def test_what_was_signed_runs(signed: Path, public: Path) -> None:
    for given in (public, str(public), public.read_bytes(), load_raw(public)):
        with load(signed, verify_key=given) as model:
            assert set(model.predict(IMAGE).keys()) == {"age", "gender", "race"}
    with load(signed / "separate" / "age.onnx", verify_key=public) as model:
        model.predict(IMAGE)
    with load(signed / MANIFEST, verify_key=public) as model:
        model.predict(IMAGE)


def load_raw(public: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(public.read_bytes()).public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_makes_the_keys_and_checks_the_signature(make_bundle: MakeBundle, tmp_path: Path) -> None:
    folder, key, public = make_bundle(), tmp_path / "key.pem", tmp_path / "key.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    load_signer(key)(folder)
    with load(folder, verify_key=public) as model:
        assert set(model.predict(IMAGE)) == {"age", "gender", "race"}
    arguments = ["-rawin", "-in", folder / MANIFEST, "-sigfile", folder / SIGNATURE_FILE]
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, *arguments]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b"\n")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_a_bundle_without_signature_does_not_run_where_a_key_is_given(make_bundle: MakeBundle, public: Path) -> None:
    folder = make_bundle()
    with pytest.raises(IntegrityError, match=r"not signed \(no manifest\.json\.sig in it\)"):
        load(folder, verify_key=public)
    load(folder).close()


def test_a_changed_manifest_does_not_run(signed: Path, public: Path) -> None:
    manifest = json.loads((signed / MANIFEST).read_text())
    manifest["signature"]["tasks"][0]["scale"] = 1.0
    (signed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=r"not this key's signature of manifest\.json"):
        load(signed, verify_key=public)


def test_a_changed_file_does_not_run(signed: Path, public: Path) -> None:
    with (signed / "fp32.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(IntegrityError, match="SHA-256"):
        load(signed, precision="fp32", verify_key=public)


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    other = write_key(tmp_path / "other.pem").with_suffix(".pub")
    with pytest.raises(IntegrityError, match="not this key's signature"):
        load(signed, verify_key=other)


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"\0" * 64, b"x" * 65, b"x" * 1_000_000])
def test_a_damaged_signature_is_refused(content: bytes, signed: Path, public: Path) -> None:
    (signed / SIGNATURE_FILE).write_bytes(content)
    with pytest.raises(IntegrityError, match="not this key's signature"):
        load(signed, verify_key=public)


def test_a_lone_graph_is_refused(signed: Path, public: Path, tmp_path: Path) -> None:
    lone = shutil.copy(signed / "fp32.onnx", tmp_path / "lone.onnx")
    load(lone).close()
    with pytest.raises(IntegrityError, match=r"lone\.onnx: a lone graph, which has no signature"):
        load(lone, verify_key=public)


def test_a_manifest_that_changes_in_between_is_refused(signed: Path, public: Path) -> None:
    """What is used must be what was signed: a writer swaps the manifest after it was parsed and before it is checked."""
    good = (signed / MANIFEST).read_bytes()
    hostile = json.loads(good)
    hostile["signature"]["tasks"][0]["scale"] = 1.0
    (signed / MANIFEST).write_text(json.dumps(hostile))
    bundle = open_bundle(signed)
    (signed / MANIFEST).write_bytes(good)
    with pytest.raises(IntegrityError, match="changed while it was read"):
        require_signed(bundle, public, "model.mtl")


def test_an_older_signed_bundle_is_not_told_apart(
    signed: Path, public: Path, make_bundle: MakeBundle, key: Path
) -> None:
    """What docs/security.md says a signature does not do."""
    older = signed.rename(signed.with_name("older.mtl"))
    newer = make_bundle()
    load_signer(key)(newer)
    for folder in (older, newer):
        with load(folder, verify_key=public) as model:
            assert set(model.predict(IMAGE)) == {"age", "gender", "race"}


def test_keys_that_cannot_be_used(signed: Path, key: Path, tmp_path: Path) -> None:
    elliptic = write_key(tmp_path / "ec.pem", ec.generate_private_key(ec.SECP256R1()))
    locked = write_key(tmp_path / "locked.pem", encryption=BestAvailableEncryption(b"secret"))
    text = tmp_path / "text.pem"
    text.write_text("no key")
    for file, message in (
        (elliptic, "not an Ed25519 key"),
        (locked, "without a password"),
        (text, "not a private key"),
        (tmp_path / "none.pem", "No such file"),
        (tmp_path, "Is a directory"),
        (key.with_suffix(".pub"), "not a private key"),
    ):
        with pytest.raises(OptionError, match=message):
            load_signer(file)
    for given, message in (
        (elliptic.with_suffix(".pub"), "not an Ed25519 key"),
        (key, "not a public key"),
        (b"", "verify_key: not a public key"),
        (tmp_path / "none.pub", "No such file"),
    ):
        with pytest.raises(OptionError, match=message):
            load(signed, verify_key=given)


def test_without_the_library_it_says_what_to_install(
    signed: Path, key: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'mtl-deploy\[sign\]'"):
        load(signed, verify_key=public)
    with pytest.raises(OptionError, match=r"pip install 'mtl-deploy\[sign\]'"):
        load_signer(key)
    load(signed).close()


def test_the_runtime_does_not_import_the_library_unasked() -> None:
    code = "import sys, mtl_deploy.runtime; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_signs_a_bundle_that_exists(
    make_bundle: MakeBundle, key: Path, public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_bundle()
    assert main([str(folder), "--engine", "none", "--sign", str(key), "-q"]) == 0
    load(folder, verify_key=public).close()
    assert main([str(folder), "--engine", "none", "--sign", str(tmp_path / "none.pem"), "-q"]) == 2
    assert "none.pem: No such file" in capsys.readouterr().err
    load(folder, verify_key=public).close()


def test_a_signed_bundle_loads_at_each_step_of_its_replacement_by_another(
    signed: Path, key: Path, public: Path, make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File by file, as in a container image's layer: its signature changes before its manifest does."""

    def refused(one: Path, other: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(disk, "exchange", refused)
    other = open_bundle(make_bundle(tmp_path / "other.mtl", precisions=("fp32",), work=1))
    looked = []

    def look(kind: str, path: Path) -> None:
        monkeypatch.setattr(disk, "before", None)
        load(signed, precision="fp32", verify_key=public).close()
        looked.append((kind, path.name))
        monkeypatch.setattr(disk, "before", look)

    with writing(signed, force=True) as staged:
        copy_files(other, staged)
        write_manifest(staged, other.manifest)
        load_signer(key)(staged)
        monkeypatch.setattr(disk, "before", look)
    monkeypatch.setattr(disk, "before", None)
    assert ("rename", SIGNATURE_FILE) in looked
    assert ("rename", MANIFEST) in looked
    assert open_bundle(signed).manifest == other.manifest


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in-its-place", "elsewhere"])
def test_a_bundle_that_loses_its_signature_says_so(elsewhere: bool, signed: Path, public: Path, tmp_path: Path) -> None:
    output = tmp_path / "new.mtl" if elsewhere else None
    with (  # noqa: PT031 - the warning comes at its end
        pytest.warns(UnsignedWarning, match=f"{output or signed} is no longer signed.*--engine none --sign KEY"),
        updating(signed, output, force=False) as (bundle, claim),
        claim.writing() as staged,
    ):
        copy_files(bundle, staged)
        write_manifest(staged, bundle.manifest)
    with pytest.raises(IntegrityError, match="not signed"):
        load(output or signed, verify_key=public)
    if elsewhere:
        load(signed, verify_key=public).close()


def test_a_bundle_that_is_signed_again_says_nothing(signed: Path, key: Path, public: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([str(signed), "--engine", "none", "--sign", str(key), "-q"]) == 0
    load(signed, verify_key=public).close()
