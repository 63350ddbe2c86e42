"""From a file to policies: read, filled with variables, checked; all mistakes at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from backstay.control.policies.document import Document, Items, Key, Node, Scalar, read_document
from backstay.control.policies.interpolation import interpolated
from backstay.control.policies.mistakes import NO_SUCH_KEY, mistakes_of
from backstay.control.policies.notifications import Notifications, unknown_names
from backstay.control.policies.policy import Policy, PolicyFile
from backstay.control.policies.service_form import as_policy_file, is_service_form
from backstay.control.policies.snapshot_names import shared_names
from backstay.errors import Mistake, NotFound, PolicyInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicies:
    """A policy file that has no mistakes, and the document that it is of."""

    document: Document
    content: PolicyFile

    @property
    def file(self) -> str:
        return self.document.file

    def policy(self, name: str) -> Policy:
        """One policy. Raises NotFound."""
        found = self.content.policies.get(name)
        if found is None:
            names = ", ".join(sorted(self.content.policies))
            raise NotFound(
                f"there is no policy {name!r} in {self.file}",
                cause=f"it has {names}" if names else "it has no policies, only settings for all",
                hint="`backstay policy show` shows what the file says",
            )
        return found


def load(path: Path, environ: Mapping[str, str]) -> LoadedPolicies:
    """The policies of a file. Raises PolicyInvalid."""
    return checked(read_document(path), environ)


def checked(document: Document, environ: Mapping[str, str]) -> LoadedPolicies:
    """The policies that a document is. Raises PolicyInvalid with all mistakes, by their lines."""
    if is_service_form(document):
        document = as_policy_file(document)
    document, unfilled = interpolated(document, environ)
    mistakes = list(document.mistakes)
    content = None
    try:
        content = PolicyFile.model_validate(plain(document.root))
    except ValidationError as error:
        found = mistakes_of(error, document)
        # What a value is cannot be told where it could not be filled; that nothing asks for it can.
        mistakes += [one for one in found if one.key not in unfilled or one.message == NO_SUCH_KEY]
    mistakes += _open_passwords(document)
    if content is not None:
        mistakes += [*_unknown_names(document, content), *shared_names(document, content)]
    if mistakes or content is None:
        raise PolicyInvalid(document.file, sorted(mistakes, key=lambda mistake: mistake.line))
    return LoadedPolicies(document=document, content=content)


def plain(node: Node) -> Any:  # noqa: ANN401 - whatever stands in the file
    """A part of a document as lists, dictionaries and values."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {name: plain(entry.node) for name, entry in node.entries.items()}


def _open_passwords(document: Document) -> list[Mistake]:
    """The mistake of each password that stands in the file itself."""
    hint = "write ${file:/whole/path} or ${VARIABLE}"
    targets: Key = ("backup_manager", "notifications", "targets")
    names = getattr(_node(document.root, targets), "entries", {})
    keys: list[Key] = [("backup_manager", "encryption", "password"), *((*targets, name, "password") for name in names)]
    return [
        document.mistake(key, "a password does not belong into this file", hint)
        for key in keys
        if isinstance(node := _node(document.root, key), Scalar) and isinstance(node.value, str) and not node.outside
    ]


def _node(node: Node | None, key: Key) -> Node | None:
    for part in key:
        entry = getattr(node, "entries", {}).get(part)
        node = entry.node if entry is not None else None
    return node


def _unknown_names(document: Document, content: PolicyFile) -> list[Mistake]:
    return [
        *unknown_names(
            document,
            content.backup_manager.notifications or Notifications(),
            content.names,
            {name: policy.notifications for name, policy in content.policies.items()},
        )
    ]
