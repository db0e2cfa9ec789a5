"""Nothing copyleft is needed to run Openline's core, however deep; and there are few hard dependencies.

Read from the metadata of what is installed. Packages that state no licence there are read from the licence
file they ship; what can be read from neither must be looked at by a person and entered in ``READ_BY_HAND``.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from source_tree import ROOT

HARD_DEPENDENCIES_MAX = 6
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|GNU|MPL|Mozilla|EPL|EUPL|CDDL|OSL|SSPL|CC-BY-SA)", re.IGNORECASE)
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|Zlib|PSF|Python Software Foundation|Unlicense|CC0|public domain)",
    re.IGNORECASE,
)
READ_BY_HAND = {
    "apsw": "any-OSI: the user picks any licence that the OSI has approved (its LICENSE file)",
}


def hard_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def installed_closure(requirements: list[str]) -> dict[str, Distribution]:
    """Every distribution that the requirements bring along on this platform, by canonical name."""
    todo = [Requirement(text) for text in requirements]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found[key[0]] = distribution(wanted.name)
        except PackageNotFoundError:
            raise AssertionError(f"{wanted} is not installed; run 'make test', which installs it") from None
        for text in found[key[0]].requires or []:
            needed = Requirement(text)
            extras = ["", *wanted.extras]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return found


def stated_licence(found: Distribution) -> str:
    """Licence expression, classifiers and field; else the first lines of the licence file; else ''."""
    meta = found.metadata
    classifiers = [text for text in meta.get_all("Classifier") or [] if text.startswith("License ::")]
    stated = " ".join([meta.get("License-Expression") or "", *classifiers]).strip()
    if not stated:
        stated = (meta.get("License") or "").strip()[:200]
    if stated:
        return stated
    for file in found.files or []:
        if re.match(r"(LICEN[CS]E|COPYING)", file.name, re.IGNORECASE):
            # The grant is at the top; permissive texts name no other licence in their first paragraph.
            return grant_of(file.read_text()[:1500])
    return ""


def grant_of(text: str) -> str:
    if "Permission is hereby granted, free of charge" in text:
        return "MIT"
    if "Redistribution and use in source and binary forms" in text:
        return "BSD"
    return text[:300]


def complaint(name: str, licence: str) -> str:
    if name in READ_BY_HAND:
        return ""
    if COPYLEFT.search(licence):
        return f"{name} is '{licence[:80]}': make it an extra behind a port, or take another library"
    if not PERMISSIVE.search(licence):
        return f"{name} states no licence we know ('{licence[:80]}'): read it and enter it in READ_BY_HAND"
    return ""


def test_no_hard_dependency_is_copyleft_however_deep() -> None:
    closure = installed_closure(hard_requirements())
    found = [text for name in sorted(closure) if (text := complaint(name, stated_licence(closure[name])))]
    assert not found, "\n" + "\n".join(found)


def test_hard_dependencies_are_few() -> None:
    assert len(hard_requirements()) <= HARD_DEPENDENCIES_MAX, "one more needs an ADR, and one less elsewhere"


def test_each_hard_dependency_is_argued_for_in_a_decision() -> None:
    decisions = "\n".join(path.read_text() for path in (ROOT / "docs" / "decisions").glob("*.md"))
    names = [Requirement(text).name for text in hard_requirements()]
    missing = [name for name in names if name not in decisions]
    assert not missing, f"no decision names {missing}; write docs/decisions/NNNN-<title>.md"


@pytest.mark.parametrize(
    ("licence", "says"),
    [
        ("LGPL-2.1-or-later", "make it an extra"),
        ("License :: OSI Approved :: GNU General Public License v3", "make it an extra"),
        ("MPL-2.0", "make it an extra"),
        ("MIT AND GPL-3.0-only", "make it an extra"),
        ("", "states no licence"),
        ("Proprietary", "states no licence"),
    ],
)
def test_a_licence_that_will_not_do_is_found(licence: str, says: str) -> None:
    assert says in complaint("something", licence)


@pytest.mark.parametrize("licence", ["MIT", "Apache-2.0", "BSD-3-Clause AND 0BSD", "PSF-2.0"])
def test_a_permissive_licence_is_let_through(licence: str) -> None:
    assert complaint("something", licence) == ""
