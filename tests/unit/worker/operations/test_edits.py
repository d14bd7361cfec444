"""Several edits of a letter, and a file that has some for each."""

import json
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.builders import line, order_value
from worker.errors import UsageError
from worker.operations.dead_letters.letter import LetterPlace, order_id_of
from worker.operations.redrive.edit_file import read_edits
from worker.operations.redrive.edits import Edited, apply, new_key
from worker.operations.redrive.json_edit import Change, ChangeError

ID, OTHER = UUID(int=1), UUID(int=2)


def written(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in lines))
    return path


def test_every_edit_applies_one_after_the_other():
    value = order_value(line(1, 0), line(2, 0), order_id=ID, user_id=0)
    changes = [Change("user_id", "7"), Change("items.*.quantity", "1"), Change("items.1.quantity", "2")]
    changed, edited = apply(changes, value)
    assert json.loads(changed or b"") == json.loads(
        order_value(line(1, 1), line(2, 2), order_id=ID, user_id=7)
    )
    assert edited == [
        Edited("user_id", "0", "7"),
        Edited("items.*.quantity", "[0, 0]", "1"),
        Edited("items.1.quantity", "1", "2"),
    ]


def test_the_whole_value_is_an_edit_and_brings_its_key():
    new = order_value(order_id=OTHER).decode()
    changed, edited = apply([Change("", new)], b"\xff")
    assert (changed, edited) == (new.encode(), [Edited("", "\ufffd", new)])
    assert new_key([Change("", new)]) == str(OTHER).encode()
    assert new_key([Change("order_id", f'"{OTHER}"'), Change("user_id", "7")]) == str(OTHER).encode()
    assert new_key([Change("user_id", "7")]) is None
    assert new_key([Change("order_id", r'"\ud800"')]) == b"?", "it is refused as no order"
    # Inside a CloudEvents event as well.
    assert new_key([Change("data.order_id", f'"{OTHER}"')]) == str(OTHER).encode()
    assert new_key([Change("", f'{{"id": "1", "data": {{"order_id": "{OTHER}"}}}}')]) == str(OTHER).encode()
    _, edited = apply([Change("data.items.*.unit_price", "null")], b'{"data": {"items": [{}, {}]}}')
    assert edited[0].field == "data.items.*.unit_price"


@pytest.mark.parametrize(
    "field", ["user", "items.0.qantity", "items.*.qantity", "note.x", "items.9.quantity"]
)
def test_a_field_that_is_not_there_and_of_no_order_is_named(field: str):
    with pytest.raises(ChangeError, match=r"has no (user|items\.0\.qantity|note|items\.9)"):
        apply([Change(field, "1")], order_value())


def test_a_field_of_the_contract_may_be_missing_and_one_beside_it_may_be_changed():
    value = b'{"note": "x", "items": [{"product_id": 1}]}'
    changed, _ = apply([Change("user_id", "7"), Change("items.*.quantity", "1"), Change("note", "2")], value)
    found = json.loads(changed or b"")
    assert (found["user_id"], found["items"], found["note"]) == (7, [{"quantity": 1, "product_id": 1}], 2)


def test_each_line_of_a_file_has_a_place_and_what_its_letter_is_to_become(tmp_path: Path):
    value = '{"order_id": "x", "price": 1.10}'
    edits = read_edits(
        written(
            tmp_path / "f",
            b"\xef\xbb\xbf" + b'{"place": "2:17", "set": {"user_id": 7, "items.0.quantity": 1.0}}',
            "",
            f'{{"place": "2:18", "value": {value}}}',
            json.dumps({"place": "2:19", "value": value, "error": {}, "headers": [], "key": "k"}),
        )
    )
    assert edits.of(LetterPlace(2, 17)) == (Change("user_id", "7"), Change("items.0.quantity", "1.0"))
    assert edits.of(LetterPlace(2, 18)) == edits.of(LetterPlace(2, 19)) == (Change("", value),)
    assert edits.named(LetterPlace(2, 18)) == f"{tmp_path / 'f'}:3: 2:18"
    assert edits.located("2:19: is gone") == f"{tmp_path / 'f'}:4: 2:19: is gone"
    assert edits.located("9:9: is gone") == "9:9: is gone"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "is no JSON object"),
        ("NaN", "is not JSON"),
        (b"\xff{}", "is not UTF-8"),
        ('{"value": {}}', "has no place"),
        ('{"place": 1, "value": {}}', "has no place"),
        ('{"place": "1:x", "value": {}}', "has no place"),
        ('{"place": "1:1"}', "1:1: give either value"),
        ('{"place": "1:1", "value": {}, "set": {"a": 1}}', "1:1: give either value"),
        ('{"place": "1:1", "values": {}}', "values: a line has place"),
        ('{"place": "1:1", "value": 7}', "value: is no JSON object"),
        ('{"place": "1:1", "value": "{"}', "value: is no JSON object"),
        ('{"place": "1:1", "set": []}', "set: write fields"),
        ('{"place": "1:1", "set": {}}', "set: write fields"),
        ('{"place": "1:1", "set": {"a..b": 1}}', "set: write fields"),
        ('{"place": "0:0", "set": {"user_id": 1}}', "0:0 stands in line 1 already"),
    ],
)
def test_every_bad_line_is_named_with_what_is_wrong(tmp_path: Path, text: str | bytes, why: str):
    good = '{"place": "0:0", "set": {"user_id": 1}}'
    path = written(tmp_path / "f", good, text, '{"place": "0:1"}')
    with pytest.raises(UsageError) as error:
        read_edits(path)
    said = str(error.value)
    assert said.startswith(f"{path}:2: ")
    assert why in said
    assert f"; {path}:3: 0:1: give either value" in said
    assert said.endswith("; nothing was sent")
    assert "\n" not in said


@pytest.mark.parametrize(("name", "why"), [("missing", "no such file"), ("", "is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str):
    with pytest.raises(UsageError, match=why):
        read_edits(tmp_path / name)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.operations.redrive.edit_file._MAX_LINE_BYTES", 100)
    with pytest.raises(UsageError, match="f:2: longer than 100 bytes; nothing was sent"):
        read_edits(written(tmp_path / "f", "", "\0" * 101))


def test_a_file_without_a_line_names_no_letter(tmp_path: Path):
    with pytest.raises(UsageError, match="names no dead letter"):
        read_edits(written(tmp_path / "f", "", "  "))


def test_a_letter_is_about_the_order_that_its_value_names_or_its_key():
    key, other = str(OTHER).encode(), str(ID).encode()
    assert order_id_of(key, order_value(order_id=ID)) == ID
    assert order_id_of(None, order_value(order_id=ID)[:-20]) == ID, "cut"
    assert order_id_of(key, b"\xff") == order_id_of(key, None) == OTHER
    assert order_id_of(key, b'{"order_id":"%s"}{"order_id":"%s"}' % (key, other)) == OTHER, "which one?"
    assert order_id_of(b"\xff", b'{"order_id": 7}') is None
