"""Credentials where obstore does not look: the files of the AWS tools, and Azure's connection string."""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backstay.core.environment import expanded_if_known
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from obstore.store import S3CredentialProvider

# With one of these obstore finds credentials by itself, as the AWS tools would before they look into files.
_AWS_BY_ITSELF: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_STATIC: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_DYNAMIC: Final = ("sso_session", "sso_start_url", "role_arn", "credential_process", "login_session")
_AZURE: Final = {"AccountName": "account_name", "AccountKey": "account_key", "SharedAccessSignature": "sas_key"}


class AwsProfile:
    """One profile of `~/.aws/config` and `~/.aws/credentials`, or of the files that the environment names."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = expanded_if_known(environ.get("HOME") or "~")
        named = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
        self.name = named or "default"
        config = Path(environ.get("AWS_CONFIG_FILE") or home / ".aws/config")
        shared = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials")
        section = self.name if self.name == "default" else f"profile {self.name}"
        found = [_section(config, section), _section(shared, self.name)]
        if named and found == [None, None]:
            raise InvalidRequest(
                f"there is no AWS profile {self.name}",
                cause=f"neither {config} nor {shared} has it",
                hint="name another",
            )
        self.values: dict[str, str] = {**(found[0] or {}), **(found[1] or {})}

    def get(self, name: str) -> str | None:
        """A setting such as `region` or `endpoint_url`."""
        return self.values.get(name)


def _section(path: Path, name: str) -> dict[str, str] | None:
    reader = ConfigParser(interpolation=None, default_section="", strict=False)
    try:
        reader.read_string(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, Error) as error:  # the parser's own message may quote a line with a secret
        raise InvalidRequest(f"{path} cannot be read", cause=type(error).__name__, hint="mend or remove it") from None
    return dict(reader[name]) if reader.has_section(name) else None


def aws_keys(profile: AwsProfile, environ: Mapping[str, str]) -> dict[str, str]:
    """The keys that a profile holds as they are; empty when obstore finds better ones by itself, or there are none."""
    for name in _STATIC:
        _check_key(name.upper(), environ.get(name.upper()) or "")
        _check_key(f"{name} of the profile {profile.name}", profile.get(name) or "")
    if any(environ.get(name) for name in _AWS_BY_ITSELF) or not profile.get("aws_access_key_id"):
        return {}
    return {ours: value for theirs, ours in _STATIC.items() if (value := profile.get(theirs))}


def _check_key(name: str, value: str) -> None:
    """obstore panics over what cannot stand in a header."""
    if not (value.isascii() and value.isprintable()):
        raise InvalidRequest(
            f"{name} is no key",
            cause="there is a character in it that no key has, such as an end of line",
            hint="set it anew, without what stands around the key in a file",
        )


def aws_provider(profile: AwsProfile, environ: Mapping[str, str]) -> S3CredentialProvider | None:
    """What gets the temporary credentials of a profile: boto3, which knows single sign-on, roles and processes."""
    if any(environ.get(name) for name in _AWS_BY_ITSELF) or profile.get("aws_access_key_id"):
        return None
    if not any(profile.get(name) for name in _DYNAMIC):
        return None
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise InvalidRequest(
            f"the AWS profile {profile.name} gets its credentials in a way that needs boto3",
            cause=str(error),
            hint="pip install boto3, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from error
    return Boto3CredentialProvider(boto3.Session(profile_name=profile.name))


def azure_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What AZURE_STORAGE_CONNECTION_STRING says, in obstore's words; empty without it."""
    text = environ.get("AZURE_STORAGE_CONNECTION_STRING") or ""
    pairs = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    found = {ours: pairs[theirs].removeprefix("?") for theirs, ours in _AZURE.items() if pairs.get(theirs)}
    if endpoint := pairs.get("BlobEndpoint"):
        found["endpoint"] = endpoint.rstrip("/")
    elif (suffix := pairs.get("EndpointSuffix")) and "account_name" in found:
        found["endpoint"] = f"https://{found['account_name']}.blob.{suffix}"
    return found
