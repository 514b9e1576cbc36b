"""E2E NLG: what a description of a restaurant gets right and wrong, as people would read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from judge_decoding import JudgeDecodingError
from judge_decoding.data.cases import Case
from judge_decoding.tasks import Item, RowError, parse_task, read_items
from judge_decoding.tasks.e2e import INSTRUCTION, find_errors, question
from judge_decoding.training.labels import encode
from tiny import byte_level_tokenizer

PUB = "name[The Mill], eatType[pub]"
FULL = (
    "name[The Eagle], eatType[coffee shop], food[Chinese], priceRange[less than £20], customer rating[low], "
    "area[riverside], familyFriendly[yes], near[Burger King]"
)


def pub(slot: str, value: str) -> str:
    """The Mill with one more fact."""
    return f"{PUB}, {slot}[{value}]"


RIGHT = [
    (FULL, "The Eagle is a low rated, family friendly Chinese coffee shop on the riverside near Burger King. It costs "
           "less than £20."),
    (FULL, "By the river, close to Burger King, The Eagle is a cheap coffee shop with Chinese food. Its customer "
           "rating is low and kids are welcome."),
    (PUB, "The Mill is a pub."),
    (PUB, "There is a pub called Mill."),
    (pub("priceRange", "cheap"), "The Mill is an inexpensive pub."),
    (pub("priceRange", "cheap"), "The Mill is a low-cost pub."),
    (pub("priceRange", "cheap"), "The Mill is a pub with low prices."),
    (pub("priceRange", "less than £20"), "The Mill is a pub where meals are under 20 pounds."),
    (pub("priceRange", "less than £20"), "The Mill is a pub.  Its price range is less than  £20."),
    (pub("priceRange", "£20-25"), "The Mill is a pub with prices from £20 to £25."),
    (pub("priceRange", "£20-25"), "The Mill is a moderately priced pub."),
    (pub("priceRange", "moderate"), "The Mill is a mid-priced pub."),
    (pub("priceRange", "more than £30"), "The Mill is an expensive pub."),
    (pub("priceRange", "more than £30"), "At the pub The Mill the average price is over £30."),
    (pub("priceRange", "high"), "The Mill is a pub in the high price range."),
    (pub("customer rating", "5 out of 5"), "The Mill is a five-star pub."),
    (pub("customer rating", "5 out of 5"), "The Mill is a highly rated pub."),
    (pub("customer rating", "high"), "The Mill is a pub with excellent reviews."),
    (pub("customer rating", "average"), "Customers rate the pub The Mill as average."),
    (pub("customer rating", "3 out of 5"), "The Mill is a pub that is rated 3/5."),
    (pub("customer rating", "1 out of 5"), "The Mill is a poorly rated pub."),
    (pub("customer rating", "low"), "The Mill is a pub that does not have good reviews."),
    (pub("customer rating", "low"), "The Mill is a one star pub."),
    (pub("area", "city centre"), "The Mill is a pub in the center of the city."),
    (pub("area", "city centre"), "The Mill is a downtown pub."),
    (pub("area", "riverside"), "The Mill is a pub by the river."),
    (pub("familyFriendly", "yes"), "The Mill is a child-friendly pub."),
    (pub("familyFriendly", "yes"), "The Mill is a pub for the whole family."),
    (pub("familyFriendly", "yes"), "Families are welcome at the pub The Mill."),
    (pub("familyFriendly", "yes"), "This establishment, a pub, is kids friendly: The Mill."),
    (pub("familyFriendly", "no"), "The Mill is an adults-only pub."),
    (pub("familyFriendly", "no"), "The Mill is a pub and is not really suitable for children."),
    (pub("familyFriendly", "no"), "The Mill is a non family-friendly pub."),
    (pub("food", "English"), "The Mill is a pub with British food."),
    (pub("food", "Italian"), "The Mill is a pub that serves pasta."),
    (pub("near", "Café Rouge"), "The Mill is a pub next to Cafe Rouge."),
    (pub("near", "Raja Indian Cuisine"), "The Mill is a pub near Raja Indian Cuisine."),
    ("name[The Golden Curry], near[Rainbow Vegetarian Café]", "The Golden Curry is near Rainbow Vegetarian Café."),
    ("name[Cotto], priceRange[high], customer rating[low]", "Cotto has high prices and low ratings."),
    ("name[Cotto], priceRange[high], customer rating[average]", "The price of Cotto is high, its rating is average."),
    ("name[Cotto], priceRange[low], priceRange[high]", "Cotto is expensive."),
    ("name[Cotto], food[English], eatType[pub]", "Cotto is an English pub with English food."),
    ("name[Cotto], eatType[restaurant]", "Cotto is a restaurant and coffee shop."),
]  # fmt: skip


@pytest.mark.parametrize(("mr", "text"), RIGHT)
def test_what_people_say_is_right(mr: str, text: str) -> None:
    assert find_errors(mr, text) == []


END = None  # a fact is missing: the error is at the end of the text
WRONG = [
    (PUB, "It is a pub.", [("missing", "name", END)]),
    (PUB, "The Mill serves food.", [("missing", "eatType", END)]),
    (PUB, "The Eagle is a pub.", [("wrong", "name", "The Eagle")]),
    (PUB, "The Mill is a restaurant.", [("wrong", "eatType", "restaurant")]),
    (PUB, "The Mill is a pub near Burger King.", [("invented", "near", "Burger King")]),
    (PUB, "The Mill is a Chinese pub.", [("invented", "food", "Chinese")]),
    (PUB, "The Mill is a Thai pub.", [("invented", "food", "Thai")]),
    (PUB, "The Mill is a family-friendly pub.", [("invented", "familyFriendly", "family-friendly")]),
    (PUB, "The Mill is a cheap pub by the river.",
     [("invented", "priceRange", "cheap"), ("invented", "area", "by the river")]),
    (PUB, "The Mill is a pub rated 4 out of 5.", [("invented", "customer rating", "4")]),
    (pub("food", "French"), "The Mill is a pub with Indian food.", [("wrong", "food", "Indian")]),
    (pub("food", "French"), "The Mill is a pub.", [("missing", "food", END)]),
    (pub("food", "Indian"), "The Mill is a pub near Raja Indian Cuisine.",
     [("invented", "near", "Raja Indian Cuisine"), ("missing", "food", END)]),
    (pub("area", "riverside"), "The Mill is a pub in the city centre.", [("wrong", "area", "city centre")]),
    (pub("area", "riverside"), "The Mill is a pub.", [("missing", "area", END)]),
    (pub("near", "The Sorrento"), "The Mill is a pub near All Bar One.", [("wrong", "near", "All Bar One")]),
    (pub("near", "The Sorrento"), "The Mill is a pub.", [("missing", "near", END)]),
    (pub("familyFriendly", "no"), "The Mill is a kid friendly pub.", [("wrong", "familyFriendly", "kid friendly")]),
    (pub("familyFriendly", "yes"), "The Mill is a pub and is not family-friendly.",
     [("wrong", "familyFriendly", "not family-friendly")]),
    (pub("familyFriendly", "yes"), "The Mill is a pub that does not allow children.",
     [("wrong", "familyFriendly", "does not allow children")]),
    (pub("familyFriendly", "no"), "The Mill is a pub.", [("missing", "familyFriendly", END)]),
    (pub("priceRange", "cheap"), "The Mill is a high priced pub.", [("wrong", "priceRange", "high")]),
    (pub("priceRange", "cheap"), "The Mill is a pub with prices of less than £20.",
     [("wrong", "priceRange", "less than £20")]),
    (pub("priceRange", "less than £20"), "The Mill is a pub. It costs more than £30.",
     [("wrong", "priceRange", "more than £30")]),
    (pub("priceRange", "£20-25"), "The Mill is a pub with a price range of £40.", [("wrong", "priceRange", "£40")]),
    (pub("priceRange", "high"), "The Mill is a highly rated pub.",
     [("invented", "customer rating", "highly"), ("missing", "priceRange", END)]),
    (pub("customer rating", "5 out of 5"), "The Mill is a pub rated 1 out of 5.", [("wrong", "customer rating", "1")]),
    (pub("customer rating", "high"), "The Mill is a pub with a low customer rating.",
     [("wrong", "customer rating", "low")]),
    (pub("customer rating", "3 out of 5"), "The Mill is a pub with a great customer rating.",
     [("wrong", "customer rating", "great")]),
    (pub("customer rating", "low"), "The Mill is a low priced pub.",
     [("invented", "priceRange", "low"), ("missing", "customer rating", END)]),
    (pub("area", "riverside"), "In the riverside area is The Mill, a pub. It is in the riverside area.",
     [("doubled", "area", "riverside area")]),
    (pub("priceRange", "cheap"), "The Mill is a cheap pub. It is cheap.", [("doubled", "priceRange", "cheap")]),
    (pub("area", "riverside"), "The Mill is a pub in the city centre near Avalon.",
     [("wrong", "area", "city centre"), ("invented", "near", "Avalon")]),
]  # fmt: skip


@pytest.mark.parametrize(("mr", "text", "expected"), WRONG)
def test_what_is_wrong_is_found_where_it_stands(
    mr: str, text: str, expected: list[tuple[str, str, str | None]]
) -> None:
    found = find_errors(mr, text)
    assert [(one.kind, one.slot, text[one.start : one.end] or None) for one in found] == expected
    assert all(one.start == one.end == len(text) for one in found if one.kind == "missing")
    if expected[0][0] == "doubled":
        assert found[0].start == text.rindex(str(expected[0][2]))


def test_a_missing_fact_is_an_error_of_the_end_token() -> None:
    tokenizer = byte_level_tokenizer()
    text = "The Mill is a pub."
    spans = tuple((one.start, one.end) for one in find_errors(pub("food", "French"), text))
    example = encode(Case(question="q ", answer=text, errors=spans), tokenizer)
    assert example.ids[-1] == tokenizer.eos_token_id
    judged = [example.labels[i] for i in example.judged]
    assert judged == [1] * (len(judged) - 1) + [0]


def test_rows_of_a_csv_file_are_one_item_each_meaning_representation(tmp_path: Path) -> None:
    path = tmp_path / "e2e.csv"
    path.write_text(
        'mr,ref\n"name[The Mill], eatType[pub]",The Mill is a pub.\n"name[The Mill], eatType[pub]",A pub: The Mill.\n'
        '"name[Cotto]","It is called ""Cotto""."\n',
        encoding="utf-8",
    )
    task = parse_task("e2e")
    items = read_items(task, path, on_bad=pytest.fail)
    assert items == [
        Item(PUB, (f"{INSTRUCTION}\n{PUB}",), "The Mill is a pub."),
        Item("name[Cotto]", (question("name[Cotto]"),), 'It is called "Cotto".'),
    ]
    assert task.check(items[0], "A pub called The Mill.") is True
    assert task.check(items[0], "A place called The Mill.") is False


def test_rows_as_the_hub_has_them(tmp_path: Path) -> None:
    path = tmp_path / "e2e.jsonl"
    rows = [{"meaning_representation": PUB, "human_reference": text} for text in ("The Mill is a pub.", "A pub.")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [item.key for item in read_items(parse_task("e2e"), path, on_bad=pytest.fail)] == [PUB]


@pytest.mark.parametrize(
    ("mr", "message"),
    [
        ("The Mill", r"has no facts; write them as in name\[Blue Spice\]"),
        ("name[Cotto], colour[red]", "the slot colour"),
    ],
)
def test_what_is_no_meaning_representation_is_named(mr: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RowError, match=message):
        find_errors(mr, "Cotto.")
    path, told = tmp_path / "e2e.jsonl", list[str]()
    path.write_text(json.dumps({"mr": mr}) + "\n", encoding="utf-8")
    with pytest.raises(JudgeDecodingError, match="has no questions for the task e2e"):
        read_items(parse_task("e2e"), path, on_bad=told.append)
    assert message[:8] in told[0]
