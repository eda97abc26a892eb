"""What others may use changes only when the snapshot is changed with it."""

from __future__ import annotations

import difflib

import public_api


def test_the_public_names_are_those_of_the_snapshot() -> None:
    kept = public_api.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    changes = list(
        difflib.unified_diff(kept, public_api.lines(), "tests/public_api.txt", "now", "", "", 0, "")
    )
    assert not changes, "\n".join(
        ["the public names changed; if they should, run `nox -s api` and say so in CHANGELOG.md", *changes]
    )
