"""`python -m etl_pipeline`: sample DIRECTORY | run DIRECTORY | graph DIRECTORY | make STEP OUTPUT INPUT…"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from etl_pipeline.pipeline import BY_NAME, graph_of, run
from etl_pipeline.sample import write_sample


def main(words: list[str]) -> None:
    try:
        _obey(words)
    except OSError as error:
        _refuse(str(error))


def _obey(words: list[str]) -> None:
    match words:
        case ["sample", directory]:
            write_sample(Path(directory))
        case ["run", directory]:
            run(Path(directory))
        case ["graph", directory]:
            sys.stdout.buffer.writelines(_document(Path(directory)))
        case ["make", name, output, *inputs]:
            _make(name, Path(output), [Path(path) for path in inputs])
        case _:
            _refuse(__doc__ or "")


def _document(directory: Path) -> list[bytes]:
    from backstay.graph.documents import write_document

    return list(write_document(graph_of(directory)))


def _make(name: str, output: Path, inputs: list[Path]) -> None:
    step = BY_NAME.get(name)
    if step is None or step.make is None:
        _refuse(f"no step makes {name}")
    if len(inputs) != len(step.deps):
        _refuse(f"{name} is made from {', '.join(step.deps)}")
    step.make(output, *inputs)


def _refuse(why: str) -> NoReturn:
    sys.exit(why)


if __name__ == "__main__":
    main(sys.argv[1:])
