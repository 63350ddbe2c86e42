"""The file of a quorum policy: YAML 1.2, of which JSON is a part, with a schema that refuses what it does not know."""

from __future__ import annotations

from io import BytesIO

from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from backstay.errors import InvalidQuorum


class _Validator(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StrictStr
    public_key: StrictStr


class _Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    required: StrictInt
    validators: list[_Validator]


def read_quorum(data: bytes, told: str) -> tuple[int, list[tuple[str, str]]]:
    """How many are required, and name and public key of each validator. Raises InvalidQuorum."""
    try:
        loaded = YAML(typ="safe", pure=True).load(BytesIO(data))
        policy = _Policy.model_validate(loaded)
    except (YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, ValidationError):
            cause = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors())
        else:
            cause = " ".join(str(error).split())
        raise InvalidQuorum(f"{told} cannot be read", cause=cause) from error
    return policy.required, [(validator.name, validator.public_key) for validator in policy.validators]
