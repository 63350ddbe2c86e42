"""The directories and variables of the user, under the name by which commands know them."""

from backstay.core.environment import (
    cache_directory,
    config_directory,
    data_directory,
    home,
    local_zone,
    runtime_directory,
    user,
    variable,
)

__all__ = [
    "cache_directory",
    "config_directory",
    "data_directory",
    "home",
    "local_zone",
    "runtime_directory",
    "user",
    "variable",
]
