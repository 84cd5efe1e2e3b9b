"""Any edit shows: the hash chain over the record's skeleton."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer import canonical, chain
from interposer.chain import Link
from interposer.model import Kind, Principal, Record
from interposer.records.reader import RecordReader
from interposer.records.row import Sealer
from interposer.records.sqlite import SqliteRecordStore


def made(rows: int, *, erase: tuple[int, int] | None = None) -> list[Link]:
    """A chain; the last row is an erasure of `erase` if that is given."""
    sealer = Sealer(b"k" * 32)
    who = Principal("local", "alice")
    base = Record(Kind.ANSWERED, "s1", 1.5, "i1", "crm.get", who, "allow", ("r1",), payload=b'{"a":1}')
    links = [
        sealer.seal(replace(base, invocation=f"i{n}", payload=None if n % 3 == 2 else b'{"n":%d}' % n), 9.5)
        for n in range(rows)
    ]
    if erase is not None:
        body = canonical.encode({"rows": [list(erase)], "reason": "request", "operator": "root"})
        links.append(sealer.seal(Record(Kind.ERASED, "", 2.5, payload=body), 9.5))
    return links


def head(links: list[Link]) -> tuple[int, bytes]:
    return links[-1].row.seq, links[-1].hash


def without_payload(link: Link) -> Link:
    return link._replace(salt=None, payload=None)


def test_what_was_written_verifies() -> None:
    """An untouched chain has no break; nor has an empty one."""
    links = made(10)
    assert chain.verify(links) is None
    assert chain.verify(links, head=head(links)) is None
    assert chain.verify([]) is None
    assert chain.verify([], head=(0, chain.GENESIS)) is None


@given(row=st.integers(0, 9), field=st.integers(0, 16), data=st.data())
def test_an_edited_field_breaks_the_chain_at_its_row(row: int, field: int, data: st.DataObject) -> None:
    """Whatever value is put in the place of another, of its type or of none, the row is named."""
    links = made(10)
    old = links[row].row[field]
    values = st.one_of(st.integers(), st.text(), st.binary(), st.floats(allow_nan=True), st.none(), st.just(str(old)))
    new = data.draw(values.filter(lambda value: value != old or type(value) is not type(old)))
    fields: list[Any] = list(links[row].row)
    fields[field] = new
    links[row] = links[row]._replace(row=chain.Row(*fields))
    found = chain.verify(links)
    assert found is not None
    assert found.seq == row + 1


@given(
    row=st.integers(0, 9),
    part=st.sampled_from(["previous", "hash", "salt", "payload"]),
    byte=st.integers(0, 6),
    bit=st.integers(0, 7),
)
def test_a_flipped_bit_beside_the_row_is_found_at_its_row(row: int, part: str, byte: int, bit: int) -> None:
    """Hashes, salt and payload are as sensitive as the row."""
    links = made(10)
    value = getattr(links[row], part)
    if value is None:
        return
    flipped = bytearray(value)
    flipped[byte] ^= 1 << bit
    links[row] = Link(**links[row]._asdict() | {part: bytes(flipped)})
    found = chain.verify(links)
    assert found is not None
    assert found.seq == row + 1


@pytest.mark.parametrize("row", range(9))
def test_a_deleted_row_is_named(row: int) -> None:
    """The first number that is missing is the break."""
    links = made(10)
    del links[row]
    found = chain.verify(links)
    assert found is not None
    assert (found.seq, found.what) == (row + 1, "deleted")


def test_an_inserted_row_is_named() -> None:
    """A copy of a row cannot stand twice, and a forged one has no place."""
    links = made(10)
    found = chain.verify([*links[:5], links[4], *links[5:]])
    assert found is not None
    assert (found.seq, found.what) == (6, "moved")


def test_two_rows_that_change_places_are_named() -> None:
    """Order is part of what is hashed, whatever the numbers say."""
    links = made(10)
    links[3], links[6] = links[6], links[3]
    assert chain.verify(links) == chain.Break(4, "deleted", "row 4: missing")
    third, sixth = links[3].row, links[6].row
    links[3] = links[3]._replace(row=third._replace(seq=sixth.seq))
    links[6] = links[6]._replace(row=sixth._replace(seq=third.seq))
    found = chain.verify(links)
    assert found is not None
    assert found.seq == 4


@given(cut=st.integers(1, 9))
def test_a_cut_tail_is_found_against_a_head_that_was_noted(cut: int) -> None:
    """Against its own head, or one noted elsewhere, a shorter record is short."""
    links = made(10)
    found = chain.verify(links[:-cut], head=head(links))
    assert found is not None
    assert (found.seq, found.what) == (11 - cut, "cut")


def test_a_row_after_the_head_is_found() -> None:
    """A row that fits the chain but was not written by the broker stands after the noted end."""
    links = made(10)
    found = chain.verify(links, head=head(links[:-1]))
    assert found is not None
    assert (found.seq, found.what) == (10, "inserted")


@pytest.mark.parametrize("row", [0, 4, 9])
def test_a_missing_payload_is_tampering(row: int) -> None:
    """Deletion cannot be passed off as erasure."""
    links = made(10)
    links[row] = without_payload(links[row])
    found = chain.verify(links)
    assert found is not None
    assert (found.seq, found.what) == (row + 1, "payload_missing")


def test_a_payload_that_a_chained_row_erased_may_be_missing() -> None:
    """Exactly the rows that the erasure names, and the count is told."""
    links = made(10, erase=(4, 5))
    erased = [without_payload(link) if link.row.seq in (4, 5) else link for link in links]
    verifier = chain.Verifier()
    assert [verifier.take(link) for link in erased] == [None] * 11
    assert verifier.finish() is None
    assert verifier.erased == 2
    more = [without_payload(link) if link.row.seq == 7 else link for link in erased]
    found = chain.verify(more)
    assert found is not None
    assert (found.seq, found.what) == (7, "payload_missing")


def test_an_erasure_keeps_its_own_payload() -> None:
    """What was erased by whom stays."""
    links = made(10, erase=(4, 11))
    links[-1] = without_payload(links[-1])
    found = chain.verify(links)
    assert found is not None
    assert (found.seq, found.what) == (11, "payload_missing")


def test_a_payload_where_none_was_written_is_found() -> None:
    """Nothing can be put into the record later."""
    links = made(10)
    links[2] = links[2]._replace(salt=bytes(32), payload=b"{}")
    found = chain.verify(links)
    assert found is not None
    assert (found.seq, found.what) == (3, "payload_inserted")


def test_a_commitment_says_nothing_without_its_salt() -> None:
    """Equal payloads have different commitments."""
    links = made(10)
    again = made(10)
    assert links[0].payload == again[0].payload
    assert links[0].row.commitment != again[0].row.commitment


# On the file: what somebody with the database and SQL, or a hex editor, can do.

Edit = Callable[[sqlite3.Connection, random.Random], object]
ROWS = 40

TEXTS = ("kind", "session", "invocation", "skill", "principal", "effect", "rules", "policy", "code", "question")


def _row(chance: random.Random) -> int:
    return chance.randint(1, ROWS)


def _edit(db: sqlite3.Connection, chance: random.Random) -> object:
    column = chance.choice(TEXTS)
    return db.execute(f"UPDATE events SET {column} = {column} || 'x' WHERE seq = ?", (_row(chance),))


def _number(db: sqlite3.Connection, chance: random.Random) -> object:
    column = chance.choice(("at", "boottime", "size", "kept"))
    return db.execute(f"UPDATE events SET {column} = {column} + 1 WHERE seq = ?", (_row(chance),))


def _retype(db: sqlite3.Connection, chance: random.Random) -> object:
    column = chance.choice(TEXTS)
    return db.execute(f"UPDATE events SET {column} = CAST({column} AS BLOB) WHERE seq = ?", (_row(chance),))


def _delete(db: sqlite3.Connection, chance: random.Random) -> object:
    return db.execute("DELETE FROM events WHERE seq = ?", (_row(chance),))


def _cut(db: sqlite3.Connection, chance: random.Random) -> object:
    return db.execute("DELETE FROM events WHERE seq >= ?", (_row(chance),))


def _insert(db: sqlite3.Connection, chance: random.Random) -> object:
    names = ", ".join(name for name in chain.Row._fields if name != "seq") + ", previous, hash"
    return db.execute(
        f"INSERT INTO events (seq, {names}) SELECT {ROWS + 1}, {names} FROM events WHERE seq = ?", (_row(chance),)
    )


def _swap(db: sqlite3.Connection, chance: random.Random) -> object:
    one, other = chance.sample(range(1, ROWS + 1), 2)
    db.execute("UPDATE events SET seq = -1 WHERE seq = ?", (one,))
    db.execute("UPDATE events SET seq = ? WHERE seq = ?", (one, other))
    return db.execute("UPDATE events SET seq = ? WHERE seq = -1", (other,))


def _payload(db: sqlite3.Connection, chance: random.Random) -> object:
    change = chance.choice(
        ("body = substr(body, 1, length(body) - 1)", "body = replace(body, '1', '2') || ' '", "salt = zeroblob(32)")
    )
    return db.execute(f"UPDATE payloads SET {change} WHERE seq = ?", (_row(chance),))


def _payload_gone(db: sqlite3.Connection, chance: random.Random) -> object:
    return db.execute("DELETE FROM payloads WHERE seq = ?", (_row(chance),))


def _payload_stray(db: sqlite3.Connection, chance: random.Random) -> object:
    return db.execute("INSERT INTO payloads VALUES (?, zeroblob(32), '{}')", (ROWS + _row(chance),))


def _name(db: sqlite3.Connection, chance: random.Random) -> object:
    return db.execute("UPDATE subjects SET principal = replace(principal, 'alice', 'mallory')")


def _rehash(db: sqlite3.Connection, chance: random.Random) -> object:
    return db.execute("UPDATE events SET hash = randomblob(32) WHERE seq = ?", (_row(chance),))


def _head(db: sqlite3.Connection, chance: random.Random) -> object:
    return db.execute("UPDATE head SET seq = seq - 1")


EDITS: list[Edit] = [
    *(_edit, _number, _retype, _delete, _cut, _insert, _swap, _payload, _payload_gone, _payload_stray, _name),
    *(_rehash, _head),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A record of forty rows, as bytes."""
    path = tmp_path_factory.mktemp("chain") / "record.db"

    async def write() -> None:
        store = SqliteRecordStore.open(path)
        for number in range(ROWS):
            who = Principal("local", "alice")
            body = b'{"arguments":{"n":"1%d"}}' % number
            await store.append(
                Record(Kind.ANSWERED, "s1", 1.5, f"i{number}", "crm.get", who, rules=("r",), payload=body)
            )
        await store.aclose()

    anyio.run(write)
    image = bytearray(path.read_bytes())
    image[18:20] = b"\x01\x01"  # no longer in WAL mode, so that it can be mutated in memory (file format, §1.3.3)
    return bytes(image)


def test_a_thousand_random_mutations_are_all_found(written: bytes, tmp_path: Path) -> None:
    """Edit, delete, insert, swap, cut, swap a payload: every one of a thousand is found."""
    chance = random.Random(7)
    path = tmp_path / "record.db"
    path.write_bytes(written)
    with RecordReader(path) as reader:
        assert reader.verify().found is None
    image = sqlite3.connect(":memory:", isolation_level=None)
    for turn in range(1000):
        edit = EDITS[turn % len(EDITS)]
        image.deserialize(written)
        edit(image, chance)
        path.write_bytes(image.serialize())
        with RecordReader(path) as reader:
            assert reader.verify().found is not None, edit
    image.close()


def test_a_flipped_byte_of_a_row_in_the_file_is_found(written: bytes, tmp_path: Path) -> None:
    """A hex editor on the file: each byte that belongs to a row or a payload, flipped, is found."""
    chance = random.Random(8)
    path = tmp_path / "record.db"
    for _ in range(200):
        at = chance.choice(
            [
                written.rindex(b'{"arguments":{"n":"1%d"}}' % chance.randrange(ROWS)) + chance.randrange(20),
                written.rindex(b"crm.get") + chance.randrange(7),
            ]
        )
        damaged = bytearray(written)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with RecordReader(path) as reader:
            assert reader.verify().found is not None, at
