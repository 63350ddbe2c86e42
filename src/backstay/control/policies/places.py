"""Where a repository lies, as a policy file says it: a type with its fields, or an address as of `-r`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlencode

from pydantic import AfterValidator, Discriminator, Field, Tag

from backstay.control.policies.values import (
    CalendarSpan,
    Count,
    Flag,
    Model,
    Port,
    Size,
    Text,
    WholePath,
    Wrong,
    expanded,
    several,
    told_words,
)
from backstay.errors import InvalidRequest
from backstay.storage.cloud_address import parse_address as parse_cloud_address


class Place(Model):
    """A place for objects."""

    @abstractmethod
    def address(self, environ: Mapping[str, str]) -> str:
        """The address as `-r` takes it."""


class LocalPlace(Place):
    """A directory of this machine, or one that is mounted."""

    type: Literal["local"]
    path: WholePath

    def address(self, environ: Mapping[str, str]) -> str:
        return expanded(self.path, environ)


class UrlPlace(Place):
    """Any address, also of stores that other packages know."""

    type: Literal["url"] = "url"
    url: Text

    def address(self, environ: Mapping[str, str]) -> str:
        return expanded(self.url, environ)


class _Cloud(Place):
    prefix: str = ""
    endpoint: Text | None = None
    ca: WholePath | None = None
    proxy: Text | None = None
    storage_class: Text | None = None

    def _address(self, scheme: str, place: str, **options: object) -> str:
        given = {"endpoint": self.endpoint, "ca": self.ca, "proxy": self.proxy, "storage-class": self.storage_class}
        known = {name: _told(value) for name, value in (given | options).items() if value is not None}
        below = f"/{quote(self.prefix.strip('/'))}" if self.prefix.strip("/") else ""
        return f"{scheme}://{place}{below}" + (f"?{urlencode(known, safe=':/')}" if known else "")


class S3Place(_Cloud):
    """A bucket of S3, or of what speaks like it."""

    type: Literal["s3"]
    bucket: Text
    region: Text | None = None
    path_style: Flag | None = None
    retain_days: Count | None = None

    def address(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002 - as of all places
        options = {"region": self.region, "path-style": self.path_style, "retain-days": self.retain_days}
        return self._address("s3", self.bucket, **options)


class AzurePlace(_Cloud):
    """A container of Azure Blob Storage."""

    type: Literal["azure"]
    container: Text
    account: Text | None = None

    def address(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002
        return self._address("az", self.container, account=self.account)


class GcsPlace(_Cloud):
    """A bucket of Google Cloud Storage."""

    type: Literal["gcs"]
    bucket: Text
    retain_days: Count | None = None

    def address(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002
        options = {"retain-days": self.retain_days}
        return self._address("gs", self.bucket, **options)


class _Server(Place):
    host: Text
    port: Port | None = None
    path: str = ""

    def _address(self, scheme: str, user: str | None = None) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port is not None else ""
        who = f"{quote(user, safe='')}@" if user else ""
        below = f"/{quote(self.path.strip('/'), safe='/~')}" if self.path.strip("/") else ""
        return f"{scheme}://{who}{host}{port}{below}"


class SftpPlace(_Server):
    """A directory of an SSH server."""

    type: Literal["sftp"]
    user: Text | None = None

    def address(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002
        return self._address("sftp", self.user)


class WebdavPlace(_Server):
    """A collection of a WebDAV server."""

    type: Literal["webdav"]
    user: Text | None = None
    tls: Flag = True

    def address(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002
        return self._address("webdavs" if self.tls else "webdav", self.user)


class FtpPlace(_Server):
    """A directory of an FTP server."""

    type: Literal["ftp"]
    user: Text | None = None
    tls: Flag = True

    def address(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002
        return self._address("ftps" if self.tls else "ftp", self.user)


class IpfsPlace(_Server):
    """A directory of an IPFS node."""

    type: Literal["ipfs"]
    host: Text = "localhost"

    def address(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002
        return self._address("ipfs")


TYPES: Final = ("local", "s3", "azure", "gcs", "sftp", "webdav", "ftp", "ipfs")


def _told(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _which(data: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    """The tag of the type that a place says it is of."""
    kind = data.get("type") if isinstance(data, dict) else getattr(data, "type", None)
    if kind is None and (not isinstance(data, dict) or "url" in data):
        kind = "url"
    return f"<{kind}>"


def _checked(place: Place) -> Place:
    """The same place, if its address makes sense. Raises Wrong."""
    address = place.address({})
    if address.partition(":")[0] in ("s3", "az", "gs"):
        try:
            parse_cloud_address(address)
        except InvalidRequest as error:
            raise Wrong(str(error), error.hint) from error
    return place


AnyPlace: TypeAlias = Annotated[
    Annotated[LocalPlace, Tag("<local>")]
    | Annotated[S3Place, Tag("<s3>")]
    | Annotated[AzurePlace, Tag("<azure>")]
    | Annotated[GcsPlace, Tag("<gcs>")]
    | Annotated[SftpPlace, Tag("<sftp>")]
    | Annotated[WebdavPlace, Tag("<webdav>")]
    | Annotated[FtpPlace, Tag("<ftp>")]
    | Annotated[IpfsPlace, Tag("<ipfs>")]
    | Annotated[UrlPlace, Tag("<url>")],
    Discriminator(_which),
    AfterValidator(_checked),
]


class ColdTier(Model):
    """A colder store for old data packs."""

    storage: AnyPlace
    after: CalendarSpan | None = None


class Kept(Model):
    """What goes with the place of a repository: how large it may grow, its copies, and its cold tier."""

    max_size: Size | None = None
    copies: Annotated[tuple[AnyPlace, ...], several(1)] | None = None
    quorum: Annotated[Count, Field(ge=1)] | None = None
    cold: ColdTier | None = None


class LocalStorage(LocalPlace, Kept):
    """A repository in a directory."""


class UrlStorage(UrlPlace, Kept):
    """A repository at an address."""


class S3Storage(S3Place, Kept):
    """A repository in S3."""


class AzureStorage(AzurePlace, Kept):
    """A repository in Azure."""


class GcsStorage(GcsPlace, Kept):
    """A repository in Google Cloud Storage."""


class SftpStorage(SftpPlace, Kept):
    """A repository on an SSH server."""


class WebdavStorage(WebdavPlace, Kept):
    """A repository on a WebDAV server."""


class FtpStorage(FtpPlace, Kept):
    """A repository on an FTP server."""


class IpfsStorage(IpfsPlace, Kept):
    """A repository in an IPFS node."""


Storage: TypeAlias = (
    LocalStorage
    | S3Storage
    | AzureStorage
    | GcsStorage
    | SftpStorage
    | WebdavStorage
    | FtpStorage
    | IpfsStorage
    | UrlStorage
)


def _whole(storage: Storage) -> Storage:
    """The same, if its copies go with it. Raises Wrong."""
    _checked(storage)
    count = 1 + len(storage.copies or ())
    if storage.quorum is not None and storage.copies is None:
        raise Wrong("a quorum needs copies", "name them under `copies`")
    if storage.quorum is not None and storage.quorum > count:
        raise Wrong(f"the quorum is {storage.quorum}, and there are {count} places", "the repository itself counts")
    return storage


AnyStorage: TypeAlias = Annotated[
    Annotated[LocalStorage, Tag("<local>")]
    | Annotated[S3Storage, Tag("<s3>")]
    | Annotated[AzureStorage, Tag("<azure>")]
    | Annotated[GcsStorage, Tag("<gcs>")]
    | Annotated[SftpStorage, Tag("<sftp>")]
    | Annotated[WebdavStorage, Tag("<webdav>")]
    | Annotated[FtpStorage, Tag("<ftp>")]
    | Annotated[IpfsStorage, Tag("<ipfs>")]
    | Annotated[UrlStorage, Tag("<url>")],
    Discriminator(_which),
    AfterValidator(_whole),
]

TYPES_HINT: Final = f"types are {told_words(TYPES)}; or give a `url`"
