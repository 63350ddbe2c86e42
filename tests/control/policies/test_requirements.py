"""The configurations of the requirements load as they are written there."""

from __future__ import annotations

from backstay.control.policies.places import S3Storage
from backstay.control.policies.repository_settings import repository_settings
from tests.control.policies.files import loaded

MANAGER = """\
backup_manager:
  storage:
    type: s3
    bucket: backups-bucket
    prefix: prod/
    region: us-west-2
    
  compression:
    algorithm: zstd
    level: 3
    
  encryption:
    enabled: true
    provider: aws_kms
    key_id: alias/backup-key
    
  scheduling:
    timezone: UTC
    full_backup: "0 0 * * *"
    incremental_backup: "0 */6 * * *"
    
  retention:
    keep_daily: 7
    keep_weekly: 4
    keep_monthly: 12
    
  verification:
    enabled: true
    schedule: "0 12 * * *"
    restore_test: true
"""  # noqa: W293 - as it stands there
POLICIES = """\
policies:
  database:
    sources:
      - type: postgresql
        connection: ${DB_URL}
        schemas: ["public"]
    schedule:
      full: "0 0 * * 0"
      incremental: "0 */6 * * *"
    retention:
      keep_daily: 7
      keep_weekly: 4
      keep_monthly: 12
      
  files:
    sources:
      - type: filesystem
        paths: ["/data/uploads", "/config"]
        exclude: ["*.tmp", "*.log"]
    schedule:
      full: "0 0 * * *"
    retention:
      keep_daily: 30
"""  # noqa: W293
SERVICE = """\
{
  "Backup": {
    "DefaultSchedule": "0 2 * * *",
    "RetentionPolicy": {
      "Daily": 30,
      "Weekly": 12,
      "Monthly": 12
    },
    "Compression": {
      "Enabled": true,
      "Algorithm": "gzip",
      "Level": 6
    },
    "Encryption": {
      "Enabled": true,
      "KeyRotationDays": 90
    },
    "Storage": {
      "Type": "Local",
      "Path": "/data/backups",
      "MaxSize": "1TB"
    }
  }
}
"""


def test_the_settings_of_a_manager() -> None:
    settings = loaded(MANAGER).content.backup_manager
    assert isinstance(settings.storage, S3Storage)
    assert settings.storage.address({}) == "s3://backups-bucket/prod?region=us-west-2"
    assert settings.retention is not None
    assert settings.retention.rules().keep_monthly == 12


def test_its_policies() -> None:
    found = loaded(POLICIES, {"DB_URL": "postgresql://localhost:5432/mydb"})
    assert found.content.names == ["database", "files"]


def test_the_settings_of_a_service() -> None:
    found = repository_settings(loaded(SERVICE), {})
    assert (found.address, found.max_size) == ("/data/backups", 1 << 40)
    assert (found.compressor.method, found.compressor.level) == ("gzip", 6)
