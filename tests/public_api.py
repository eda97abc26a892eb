"""The public names of the package with their signatures, one a line, and the file that they are kept in.

python tests/public_api.py --write      (or `nox -s api`)
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

SNAPSHOT = Path(__file__).with_name("public_api.txt")
# the modules that README and docs import from
MODULES = ("crnn_deploy", "crnn_deploy.client")


def lines() -> list[str]:
    """What is public now."""
    return sorted({line for module in MODULES for line in _of_module(module)})


def _of_module(module: str) -> Iterator[str]:
    found = import_module(module)
    for name in found.__all__:
        if name != "__version__":
            yield from _of(f"{module}.{name}", getattr(found, name))


def _of(name: str, value: object) -> Iterator[str]:
    if not inspect.isclass(value):
        yield f"{name}{_signature(value)}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"class {name}{_signature(value)}" + (f" is {bases}" if bases else "")
    for base in reversed(value.__mro__):
        if not base.__module__.startswith("crnn_deploy"):
            continue
        for member in base.__dict__.keys() | inspect.get_annotations(base).keys():
            if member.startswith("_"):
                continue
            part = inspect.getattr_static(value, member, None)
            if isinstance(part, staticmethod | classmethod):
                yield f"{name}.{member}{_signature(part.__func__)}"
            elif inspect.isfunction(part):
                yield f"{name}.{member}{_signature(part)}"
            else:
                kind = "property" if isinstance(part, property) else _annotation(base, member)
                yield f"{name}.{member}: {kind}"


def _annotation(base: type, member: str) -> str:
    given = inspect.get_annotations(base).get(member, "attribute")
    return given if isinstance(given, str) else inspect.formatannotation(given)


def _signature(value: object) -> str:
    if getattr(value, "_is_protocol", False):
        return ""  # nobody makes one
    try:
        return re.sub(r"<function .*? at 0x\w+>", "...", str(inspect.signature(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a type of values, or a class of the interpreter
        return ""


def text() -> str:
    return "".join(f"{line}\n" for line in lines())


def main() -> None:
    parser = argparse.ArgumentParser(description="The public names of the package with their signatures.")
    parser.add_argument("--write", action="store_true", help=f"write {SNAPSHOT.name} anew")
    if parser.parse_args().write:
        SNAPSHOT.write_text(text(), encoding="utf-8")
    else:
        print(text(), end="")


if __name__ == "__main__":
    main()
