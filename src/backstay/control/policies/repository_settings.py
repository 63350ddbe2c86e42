"""What a policy file says of its repository, in the words of the storage and the format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backstay.codec.compression import Compressor
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.policy import Compression, Encryption
from backstay.control.policies.values import expanded
from backstay.core.sizes import parse_size
from backstay.errors import KeyProviderUnsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """`address` is None where the file names no place; `max_size` in bytes."""

    address: str | None
    mirrors: tuple[str, ...] = ()
    quorum: int | None = None
    max_size: int | None = None
    compressor: Compressor
    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None


def repository_settings(loaded: LoadedPolicies, environ: Mapping[str, str]) -> RepositorySettings:
    """The settings of a file. Raises KeyProviderUnsupported."""
    settings = loaded.content.backup_manager
    encryption = settings.encryption or Encryption()
    if encryption.provider == "aws_kms":
        raise KeyProviderUnsupported(
            "this version cannot keep keys in AWS KMS",
            cause=f"{loaded.document.mistake(('backup_manager', 'encryption', 'provider'), 'it is aws_kms')}",
        )
    storage = settings.storage
    return RepositorySettings(
        address=None if storage is None else storage.address(environ),
        mirrors=() if storage is None else tuple(copy.address(environ) for copy in storage.copies or ()),
        quorum=None if storage is None else storage.quorum,
        max_size=None if storage is None or storage.max_size is None else parse_size(storage.max_size),
        compressor=(settings.compression or Compression()).compressor(),
        password=encryption.password,
        key_file=None if encryption.key_file is None else Path(expanded(encryption.key_file, environ)),
    )


def key_file_name(address: str) -> str:
    """The name of the key file that is made for a repository at this address, where none is named."""
    return f"repository-{hashlib.sha256(address.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}.key"
