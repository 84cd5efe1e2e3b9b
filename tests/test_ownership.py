"""Who else could change a file: every place on the way to it counts, and the file."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import struct
from pathlib import Path

import pytest

from interposer.errors import ConfigurationError
from interposer.ownership import fault, is_private, require_ours

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
OTHER = 64123
"""A uid and gid that nobody has."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of ours in a folder of ours."""
    (tmp_path / "folder").mkdir(mode=0o755)
    path = tmp_path / "folder" / "file"
    path.write_text("x")
    path.chmod(0o644)
    return path


def user(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", "/", ""))


def group(name: str, gid: int, *members: str) -> grp.struct_group:
    return grp.struct_group((name, "x", gid, list(members)))


@pytest.mark.parametrize(
    ("found", "private"),
    [
        (group("ann", 1000), True),
        (group("ann", 1000, "ann", "root"), True),
        (group("ann", 1000, "ann", "bob"), False),
        (group("users", 1000), True),
        (group("users", 100), False),
        (group("ann", 1001), False),
    ],
)
def test_a_group_is_private_by_its_name_and_members(found: grp.struct_group, private: bool) -> None:
    """A group that lists nobody is still everybody's where it is the primary one of all."""
    assert is_private(found, user("ann", 1000, 1000)) is private


def test_a_shared_primary_group_is_not_private() -> None:
    """`users` is the primary group of everybody, although it lists no member."""
    assert not is_private(group("users", 100), user("ann", 1000, 100))


def test_what_only_we_can_write_is_fine(file: Path) -> None:
    """Reading is not judged here: only who could change it."""
    assert fault(str(file)) == ""
    require_ours(str(file))


@pytest.mark.parametrize(("mode", "command"), [(0o646, "chmod o-w"), (0o666, "chmod o-w"), (0o664, "chmod g-w")])
@needs_root
def test_a_file_that_others_can_write_is_named_with_its_remedy(file: Path, mode: int, command: str) -> None:
    """The message names the offending place and the command that mends it."""
    os.chown(file, -1, OTHER)
    file.chmod(mode)
    assert fault(str(file)).endswith(f": {command} {file}")
    with pytest.raises(ConfigurationError, match=command):
        require_ours(str(file))


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_directory_on_the_way_counts(file: Path, mode: int) -> None:
    """Whoever can rename the folder can put another file there."""
    file.parent.chmod(mode)
    assert fault(str(file)).endswith(f"chmod o-w {file.parent}")


def test_every_directory_behind_a_link_counts(file: Path, tmp_path: Path) -> None:
    """Links are followed one by one: what they lead through counts as well as what they stand in."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(file.parent)
    assert fault(str(tmp_path / "one" / "file")) == ""
    file.parent.chmod(0o777)
    assert fault(str(tmp_path / "one" / "file")).endswith(f"chmod o-w {file.parent}")
    assert fault(str(tmp_path / "one" / ".." / "folder" / "file")).endswith(f"chmod o-w {file.parent}")


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    """A chain without an end is no path."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "Too many levels" in fault(str(tmp_path / "a"))


def test_a_sticky_directory_protects_what_is_ours_in_it(file: Path) -> None:
    """In /tmp nobody can rename our file; but anybody can make one that does not exist yet."""
    file.parent.chmod(0o1777)
    assert fault(str(file)) == ""
    assert "others can make it" in fault(str(file.parent / "absent"))
    assert fault(str(file.parent)).endswith(f"chmod o-w {file.parent}")
    file.parent.chmod(0o755)
    assert fault(str(file.parent / "absent")) == ""


@needs_root
def test_what_belongs_to_somebody_else_is_refused(file: Path) -> None:
    """The owner can always write: of the file, of a folder, and of a link in a sticky folder."""
    os.chown(file, OTHER, -1)
    assert fault(str(file)) == f"{file} belongs to uid {OTHER}: do this as that user (sudo -u), or chown 0 {file}"
    assert fault(str(file), uid=OTHER) == ""
    os.chown(file, 0, -1)
    os.chown(file.parent, OTHER, -1)
    assert fault(str(file)).endswith(f"chown 0 {file.parent}")
    os.chown(file.parent, 0, -1)
    (file.parent / "link").symlink_to(file)
    os.chown(file.parent / "link", OTHER, OTHER, follow_symlinks=False)
    assert fault(str(file.parent / "link")) == ""
    file.parent.chmod(0o1777)
    assert fault(str(file.parent / "link")).endswith(f"chown 0 {file.parent / 'link'}")


def test_known_places_are_not_judged_twice_but_by_what_they_are(file: Path) -> None:
    """A sticky folder is fine on the way, and is not as the end of a path; what was found of one is not the other's."""
    file.parent.chmod(0o777 | stat.S_ISVTX)
    known: dict[tuple[str, bool, bool], str] = {}
    for _ in range(2):
        assert fault(str(file), known=known) == ""
        assert fault(str(file.parent), known=known) != ""


def test_an_access_list_makes_no_group_private(file: Path) -> None:
    """acl(5): the group bits show what the entries of others may at most, whoever the group is."""
    # Version 2, then tag, permissions and id of each entry: owner, user OTHER, group, mask, others.
    entries = ((0x01, 6, 2**32 - 1), (0x02, 6, OTHER), (0x04, 4, 2**32 - 1), (0x10, 6, 2**32 - 1), (0x20, 4, 2**32 - 1))
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(file, "system.posix_acl_access", listed)
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP  # noqa: PT017 - a file system without them has none to find
        return
    assert fault(str(file)).endswith(f"chmod g-w {file}")
    file.chmod(0o644)
    assert fault(str(file)) == ""
