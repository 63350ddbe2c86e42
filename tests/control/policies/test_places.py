"""What a policy file says of a place, as the address that the storage takes."""

from __future__ import annotations

import pytest

from backstay.control.policies.repository_settings import RepositorySettings, repository_settings
from backstay.storage.address import parse_address
from backstay.storage.cloud_address import parse_address as parse_cloud_address
from tests.control.policies.files import loaded


def settings(storage: str) -> RepositorySettings:
    return repository_settings(loaded(f"backup_manager: {{storage: {storage}}}"), {"HOME": "/home/ann"})


@pytest.mark.parametrize(
    ("storage", "address"),
    [
        ("{type: local, path: /srv/repository}", "/srv/repository"),
        ("{type: local, path: ~/repository}", "/home/ann/repository"),
        ("{url: 'sftp://ann@host/path'}", "sftp://ann@host/path"),
        ("{type: s3, bucket: b}", "s3://b"),
        (
            "{type: s3, bucket: b, prefix: /a/b/, endpoint: 'https://minio:9000', path_style: true, retain_days: 30}",
            "s3://b/a/b?endpoint=https://minio:9000&path-style=true&retain-days=30",
        ),
        ("{type: azure, container: c, account: a}", "az://c?account=a"),
        ("{type: gcs, bucket: b, prefix: p, storage_class: NEARLINE}", "gs://b/p?storage-class=NEARLINE"),
        ("{type: sftp, host: h, port: 2222, user: ann@home, path: /srv/a b}", "sftp://ann%40home@h:2222/srv/a%20b"),
        ("{type: sftp, host: 'fe80::1', path: x}", "sftp://[fe80::1]/x"),
        ("{type: webdav, host: h, path: /dav}", "webdavs://h/dav"),
        ("{type: webdav, host: h, tls: false}", "webdav://h"),
        ("{type: ftp, host: h, user: ann, path: p}", "ftps://ann@h/p"),
        ("{type: ftp, host: h, tls: false}", "ftp://h"),
        ("{type: ipfs, path: backups}", "ipfs://localhost/backups"),
    ],
)
def test_a_place_is_an_address(storage: str, address: str) -> None:
    found = settings(storage).address
    assert found == address
    scheme = address.partition("://")[0]
    if scheme in ("s3", "az", "gs"):
        assert str(parse_cloud_address(address)).startswith(f"{scheme}://")
    elif "://" in address:
        assert parse_address(address, credentials="").scheme == scheme


def test_copies_quorum_and_size() -> None:
    found = settings("{type: local, path: /a, max_size: 2g, quorum: 2, copies: [{type: s3, bucket: b}, {url: /c}]}")
    assert found.mirrors == ("s3://b", "/c")
    assert (found.quorum, found.max_size) == (2, 2 << 30)
