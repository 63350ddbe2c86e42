"""Policy files as text, read."""

from __future__ import annotations

from pathlib import Path

from backstay.control.policies.loading import LoadedPolicies, load

SHOP = """
backup_manager:
  scheduling: {timezone: Europe/Berlin, full_backup: "0 1 * * 0", configuration_backup: on_change}
policies:
  shop:
    sources:
      - {type: sqlite, name: db, path: /srv/shop.db}
      - {type: filesystem, name: files, paths: [/data/uploads, CONFIG]}
    schedule:
      full: "0 0 * * 0"
      incremental: "0 */6 * * *"
      transaction_logs: "*/15 * * * *"
      configuration: on_change
    verification: {schedule: "30 4 * * *"}
  plain:
    sources:
      - {type: filesystem, paths: [/data]}
"""


def loaded(directory: Path, text: str = SHOP, config: str = "/etc/shop") -> LoadedPolicies:
    file = directory / "backstay.yaml"
    file.write_text(text.replace("CONFIG", config))
    return load(file, {})
