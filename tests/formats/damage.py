"""Ways in which a repository can be broken, each applied to the golden one; other tests may use them too.

`DAMAGES` is the table. Every damage takes the objects of a repository and returns others. Those that need keys forge
whole objects, as a bug, or somebody who has the passphrase, could.
"""

from __future__ import annotations

from typing import Final

from tests.formats.damage_of_contents import OF_CONTENTS
from tests.formats.damage_of_packs import OF_PACKS
from tests.formats.damage_of_records import OF_RECORDS
from tests.formats.damage_of_trees import OF_TREES
from tests.formats.damage_without_keys import WITHOUT_KEYS

DAMAGES: Final = [*WITHOUT_KEYS, *OF_RECORDS, *OF_PACKS, *OF_TREES, *OF_CONTENTS]
