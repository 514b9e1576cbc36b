"""The facts in a restaurant description: which ones the text states, in which words, and where.

The E2E NLG challenge (Novikova et al., arXiv 1706.09254) has eight slots with a closed set of values, which people word
freely. A text is read slot by slot, and words matched by one wording are hidden from later ones: the Golden Curry
serves no curry, and a low price does not state a rating. The wordings are those of the challenge's development set.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal, NamedTuple

Slot = Literal["name", "near", "area", "familyFriendly", "food", "eatType", "customer rating", "priceRange"]


class Mention(NamedTuple):
    """A fact that a text states, and where.

    ``value`` is a value of the slot, or a vaguer one, such as "low" for a price. A wording that is not ``sure`` counts
    if the fact is asked for, and is not an invented fact if it is not.
    """

    start: int
    end: int
    slot: Slot
    value: str
    sure: bool = True


class _Wording(NamedTuple):
    """A pattern over folded text; its group v, if it has one, is the location of the value."""

    slot: Slot
    value: str
    pattern: str
    sure: bool = True


# Patterns for names that people vary; other names must match exactly.
_NAMES = {
    "Alimentum": "", "Aromi": "", "Bibimbap House": r"bibimbap(?: house)?", "Blue Spice": "",
    "Browns Cambridge": r"brown'?s(?: cambridge)?", "Clowns": "", "Cocum": "", "Cotto": "",
    "Fitzbillies": r"fitzbill?ie'?s", "Giraffe": "", "Green Man": "", "Loch Fyne": "", "Midsummer House": "",
    "Strada": "", "Taste of Cambridge": "", "The Cambridge Blue": r"(?:the )?cambridge blue",
    "The Cricketers": r"(?:the )?cricketers?", "The Dumpling Tree": r"(?:the )?dumpling tree",
    "The Eagle": r"(?:the )?eagles?", "The Golden Curry": r"(?:the )?golden curry",
    "The Golden Palace": r"(?:the )?golden palace", "The Mill": r"(?:the )?mill",
    "The Olive Grove": r"(?:the )?olive grove", "The Phoenix": r"(?:the )?phoenix", "The Plough": r"(?:the )?plough",
    "The Punter": r"(?:the )?punter'?s?", "The Twenty Two": r"the twenty two", "The Vaults": r"(?:the )?vaults?",
    "The Waterman": r"(?:the )?waterman", "The Wrestlers": r"(?:the )?wrestlers?",
    "Travellers Rest Beefeater": r"travell?er'?s'?(?: rest)?(?: beefeater)?", "Wildwood": "", "Zizzi": "",
}  # fmt: skip
_NEIGHBOURS = {
    "All Bar One": "", "Avalon": "", "Burger King": r"burger ?king", "Café Adriatic": r"(?:cafe )?adriatic(?: cafe)?",
    "Café Brazil": r"(?:cafe )?brazil(?: cafe)?", "Café Rouge": r"(?:cafe )?rouge(?: cafe)?",
    "Café Sicilia": r"(?:cafe )?sicill?i?a(?: cafe)?", "Clare Hall": "",
    "Crowne Plaza Hotel": r"crowne plaza(?: hotel)?",
    "Express by Holiday Inn": r"(?:express (?:by |by the )?)?holiday inn(?: express)?",
    "Rainbow Vegetarian Café": r"rainbow(?: vegetarian)?(?: cafe)?",
    "Raja Indian Cuisine": r"raja(?: indian)?(?: cuisine| food| restaurant)?", "Ranch": r"(?:the )?ranch",
    "The Bakers": r"(?:the )?baker'?s", "The Portland Arms": r"(?:the )?portland(?: arms?)?",
    "The Rice Boat": r"(?:the )?rice boat", "The Six Bells": r"(?:the )?six bells",
    "The Sorrento": r"(?:the )?sorrento", "Yippee Noodle Bar": "",
}  # fmt: skip


def _places() -> Iterator[_Wording]:
    """Names come first, because they contain words that mean something else elsewhere."""
    known: tuple[tuple[Slot, dict[str, str]], ...] = (("near", _NEIGHBOURS), ("name", _NAMES))
    for slot, values in known:
        for value, pattern in values.items():
            yield _Wording(slot, value, rf"\b(?:{pattern or _fold(value)[0]})\b")
    yield _Wording("near", "Crowne Plaza Hotel", r"\bcrown plaza(?: hotel)?\b", sure=False)  # a misspelling
    for pattern in (
        r"\b(?:city|town|cities)[- ]?'?s?[- ]?(?:cent(?:re|er)|central)\b(?: area)?",
        r"\bcent(?:re|er)\.? (?:area )?(?:of|in) (?:the )?(?:\w+ )?(?:city|town|cambridge)\b",
        r"\bdown ?town\b",
        r"\b(?:middle|heart) of (?:the )?(?:city|town)\b",
    ):
        yield _Wording("area", "city centre", pattern)
    beside = r"(?:by|on|along|alongside|beside|near|at|next to|side of|close to|banks? of|view of|overlooking|off)"
    for pattern in (r"\briver[- ]?(?:side|bank|front)s?\b(?: area)?", rf"\b{beside} (?:the |a )?(?:\w+ )?river\b"):
        yield _Wording("area", "riverside", pattern)
    yield _Wording("area", "city centre", r"\b(?:central(?:ly)?|cent(?:re|er)|city)\b", sure=False)
    yield _Wording("area", "riverside", r"\b(?:river|water(?:front|side)?|banks?)\b", sure=False)


_YOUNG = r"(?:famil(?:y|ies)|kids?|child(?:ren)?'?s?)"


def _families() -> Iterator[_Wording]:
    """Who is welcome; negations are read first."""
    denial = r"(?:not|\w+n't|(?:is|are|does|do|would|should)nt|non|no|never|un|hardly)"
    between = (
        r"(?:(?:very|really|a|an|any|considered|so|particularly|at|all|necessarily|exactly|the|most|be|being|recommended|"
        r"suitable|good|best|ideal|appropriate|suited|great|meant|intended|open|for|to|of|your|as|deemed|known|classed|with|"
        r"young|welcoming|friendly|place|somewhere|bring|take|it|is|also) ){0,6}?"
    )
    some, gap = r"(?:[- ]?(?:friendly|oriented|orientated|welcome|allowed))?", r"(?:[\w']+ ){0,3}?"
    verbs = (
        r"(?:allow|welcome|cater|accept|recommend|bring|take|admit|permit|suit|accommodate|encourage|serve|like|have|offer|"
        r"want|consider|support|include)\w*"
    )
    for pattern in (
        rf"\b{denial}[ -]{{0,2}}{between}{_YOUNG}\b{some}",
        rf"\b(?:does|do|did|would|will|is|are|can|should)(?:n'?t| not) {gap}{verbs} {gap}{_YOUNG}{some}",
        rf"\b{_YOUNG}[- ]?(?:un-?friendly|free|not|prohibited|no)\b"
        r"(?: (?:be )?(?:allowed|welcome|permitted|recommended|friendly|invited|catered for))?",
        rf"\b{_YOUNG} (?:(?!and|but|which)\w+ )?(?:are|is|should)(?:n'?t| not| prohibited| unwelcome| banned)\b"
        r"(?: (?:be )?(?:allowed|welcome|permitted|recommended|friendly|invited|catered for))?",
        rf"\b{_YOUNG}[- ]friendly(?:: | -|,)? ?no\b",
        r"\badults?[- ]?(?:only|s only|oriented|orientated|friendly|themed)\b",
        r"\bonly (?:for |to |allows? |suitable for )?adults?\b",
        rf"\b(?:lacks?|lacking|without|avoid|leave|unsuitable for|inappropriate for|unfriendly to) (?:\w+ )?{_YOUNG}\b",
        r"\bunfriendly\b",
    ):
        yield _Wording("familyFriendly", "no", pattern)
    for pattern in (r"\b(?:adults?|childless|grown[- ]?ups?)\b", r"\b(?:no|not|non|un)\b.{0,20}\bfriendly\b"):
        yield _Wording("familyFriendly", "no", pattern, sure=False)
    welcome = (
        r"(?:friend(?:ly|s|lier)?|oriented|orientated|welcom(?:e|ed|ing)|appropriate|suitable|approved"
        r"|are (?:\w+ )?(?:welcome\w*|allowed|permitted))"
    )
    good_for = (
        r"(?:friendly|suitable|good|great|perfect|ideal|welcom\w+|caters?|open|appropriate|fun|safe|kind|allows?|accepts|"
        r"fit|recommended|accommodat\w+)"
    )
    for pattern in (
        rf"\b{_YOUNG}(?: and {_YOUNG})?[- ]*(?:style |atmosphere )?{welcome}\b(?:(?:: | -|,)? ?yes\b)?",
        rf"\b{good_for} {gap}{_YOUNG}\b",
    ):
        yield _Wording("familyFriendly", "yes", pattern)
    yield _Wording("familyFriendly", "yes", rf"\b(?:{_YOUNG}|all ages)\b", sure=False)


def _kinds() -> Iterator[_Wording]:
    """The food and the kind of place."""
    yield _Wording("food", "Fast food", r"\bfast[- ]?foods?\b|\b(?:ham)?burgers?\b")
    for value, words in {
        "Chinese": "chinese?|china|oriental", "English": "english|british|england", "French": "french|france",
        "Indian": "indian|india", "Italian": "italian|italy", "Japanese": "japanese|japan",
        "another": "thai|mexican|spanish|greek|american|german|korean|vietnamese|mediterranean|turkish|irish",
    }.items():  # fmt: skip
        yield _Wording("food", value, rf"\b(?:{words})\b")
    for value, words in {
        "Japanese": "sushi", "Italian": "pastas?|pizzas?|spaghetti", "Indian": "curry|curries",
        "French": "wines?|cheeses?", "Chinese": "noodles?|asian", "Fast food": "fries|quick (?:food|meals?|bite)s?",
        "English": "fish (?:and|n|&) chips|breakfasts?|traditional|pub (?:food|grub)|uk",
    }.items():  # fmt: skip
        yield _Wording("food", value, rf"\b(?:{words})\b", sure=False)
    yield _Wording("eatType", "coffee shop", r"\bcoffee[- ]?(?:shops?|houses?|bar|place|store|cafe)?\b")
    yield _Wording("eatType", "pub", r"\b(?:pubs?|public house|taverns?)\b")
    yield _Wording("eatType", "restaurant", r"\brest(?:au|ua|a|u)rants?\b")
    yield _Wording("eatType", "coffee shop", r"\b(?:cafe'?s?|tea)\b", sure=False)
    yield _Wording("eatType", "restaurant", r"\b(?:diners?|eater(?:y|ies)|bistro|din(?:e|ing))\b", sure=False)
    yield _Wording("eatType", "pub", r"\bbar\b", sure=False)


_LEVELS = (
    r"(?:low(?:er|est|ly)?(?:[- ]end)?)",
    r"(?:averaged?|averagely|moderate(?:ly)?|mid(?:dle)?(?:[- ]?ranged?)?|medium|mediocre)",
    r"(?:high(?:er|est|ly)?(?:[- ]end)?)",
)
_PRICE = r"(?:pric(?:e|es|ed|ing)\b|cost(?:s|ing)?\b|charge[sd]?\b)"
_RATING = (
    r"(?:rat(?:ed|ings?|es?|er)\b|review\w*|customers?\b|consumers?\b|scor(?:es?|ed)\b|rank\w*|regarded|satisfaction"
    r"|reputation|recommend\w*|marks\b|approval|opinions?|feedback|stars?\b|valued\b|acclaim\w*)"
)
# A word between a level and its noun: not a conjunction, another level or another noun.
_STEP = (
    r"(?:(?!(?:and|but|with|while|however|yet)\b|low|averag|moderate|high|\w*pric|rat(?:ed|ing)|food\b|from\b|near\b)"
    r"[\w'£-]+ )"
)
_NEAR = (
    r"(?:(?!(?:the|an?|is|are|has|have|it|its|their|they|for|of|in|at|by|on|to|that|which|there|where)\b)" + _STEP + ")"
)


def _beside(slot: Slot, noun: str, values: Iterable[tuple[str, str]]) -> Iterator[_Wording]:
    """Words for a level before or after its noun: "low prices", "its price is low"."""
    behind = r"(?:[- ]?(?:range|point|level|bracket|category)s?)?(?: ?[:,(-] ?| )"
    values = list(values)
    for words, value in values:
        yield _Wording(slot, value, rf"(?P<v>\b(?:{words}))[- ]{_NEAR}{{0,2}}(?:\w+-)?{noun}")
    for words, value in values:
        # Exclude words that belong to the next noun, as in "the price is high, average rating".
        other = rf"(?! (?:{_STEP}?(?:pric|rat|customer)))"
        yield _Wording(slot, value, rf"{noun}{behind}{_STEP}{{0,4}}(?P<v>{words})\b{other}")


def _ratings() -> Iterator[_Wording]:
    """Numbers first, then words of praise and blame next to a word for the rating."""
    of_five = r"(?: ?/ ?|(?: stars?)? ?-?(?:out|our|put|ou)?[ -]*(?:of|off)?[- ](?:a )?(?:possible )?)(?:5|five)\b"
    for value, words in enumerate(("one", "two", "three", "four", "five"), start=1):
        digit = rf"(?P<v>(?:{value}|{words}))"
        before = r"\b(?:rat(?:ed|ings?|es?)|scores?)(?: (?:of|is|a|at|as|an?|number|them|it)){0,3} "
        ways = rf"\b{digit}{of_five}(?:[ -]stars?)?", rf"\b{digit}[- ]?stars?\b", rf"{before}{digit}\b(?! (?:to|-))"
        yield from (_Wording("customer rating", str(value), pattern) for pattern in ways)
    praise = r"good|great|high(?:ly)?|well|excellent|best|positive|top"
    denied = rf"\b(?:not|\w*n't|no|without|lacks?|never) (?:\w+ ){{0,3}}?(?:{praise}) {_STEP}{{0,2}}{_RATING}"
    yield _Wording("customer rating", "low", denied)
    unpopular = r"\bnot (?:very |so |that |well |highly )*(?:liked|rated|recommended|reviewed|popular)\b"
    yield _Wording("customer rating", "low", unpopular)
    yield from _beside("customer rating", _RATING, (
        (r"poor(?:ly)?|bad(?:ly)?|terribl[ey]|negative(?:ly)?|horribl[ey]|awful|disappointing|unfavou?rabl[ey]|worst"
         r"|sub-?par|below average", "low"),
        (r"well|top|best|excellent|great|positive(?:ly)?|fantastic|outstanding|superb|exceptional|amazing|wonderful|perfect"
         r"|favou?rabl[ey]|rave|strong|popular", "high"),
        (r"good", "good"),
        (r"decent|fair(?:ly)?|ok(?:ay)?|satisfactory|so-so|acceptable|adequate|mixed", "average"),
    ))  # fmt: skip


def _prices() -> Iterator[_Wording]:
    """Amounts first, then words that can only mean a price."""
    pounds, behind = r"(?:[£$] ?|gbp ?|euros? ?|pounds? )?", r"(?: ?(?:pounds?|euros?|gbp|£|quid)\b)?"
    to, mean = r" ?(?:-|to|and|or|through) ?", r"(?:averag\w* (?:[a-z]+ ){0,4}?)?"
    less = r"(?:less(?:er)? th[ae][nt]|under|below|(?:low|cheap)er than|up to|not? more than|at most|within)"
    more = r"(?:more th[ae][nt]|over|above|(?:high|great)er than|upwards? of|at least|exceed\w*|starting (?:at|from))"
    for value, pattern in (
        ("£20-25", rf"{pounds}\b(?:20|twenty){behind}{to}{pounds}(?:25|twenty[- ]five)\b{behind}"),
        ("less than £20", rf"\b{mean}{less} (?:the )?{pounds}(?:20|twenty)\b{behind}"),
        ("less than £20", rf"{pounds}\b(?:20|twenty){behind} (?:or|and) (?:less|under|below|lower)"),
        ("less than £20", rf"{pounds}\b0{to}£?20\b"),
        ("more than £30", rf"\b{mean}{more} (?:the |to )?{pounds}(?:30|thirty)\b{behind}"),
        ("more than £30",
         rf"{pounds}\b(?:30|thirty){behind} ?(?:\+|plus|(?:or|and) (?:more|up|above|over|higher|upwards?)|minimum)"),
        ("another", r"[£$] ?\d+(?: ?(?:-|to) ?[£$]? ?\d+)?|\b\d\d (?:pounds|euros)\b|(?<=price range of )\d+\b"),
        ("high", r"\bnot (?:at all )?(?:cheap|inexpensive)\b|\bup-?(?:scale|market)\b|\bhigh[- ]class\b"),
        ("low", r"\b(?:in-?expensive(?:ly)?|not (?:too |very |so )?expensive|cheap(?:er|est|ly)?(?:[- ]priced)?)\b"),
        ("low", r"\b(?:low[- ]cost|budget)\b"),
        ("fair", rf"\b(?:reasonabl[ey]|fair(?:ly)?|decent(?:ly)?|competitive(?:ly)?|great|good)[- ]{_PRICE}"),
        ("fair", r"\baffordabl[ey]\b"),
        ("fair", rf"{_PRICE} {_STEP}{{0,3}}(?:reasonable|fair|decent|affordable)\b"),
        ("moderate", rf"\bmid(?:dle)?[- ]?(?:range|level|price)[ds]?\b(?! (?:customer )?{_RATING})"),
        ("high", r"\b(?:expensive(?:ly)?|costly|pric(?:e)?y|pricier|over-?priced)\b"),
        ("high", r"\bhigh[- ]end\b(?! (?:customer|rat))"),
    ):  # fmt: skip
        yield _Wording("priceRange", value, pattern)


def _levels() -> Iterator[_Wording]:
    """Low, average and high, as a price or as a rating, depending on the words around them."""
    prices, ratings = ("low", "moderate", "high"), ("low", "average", "high")
    yield from _beside("priceRange", _PRICE, zip(_LEVELS, prices, strict=True))
    yield from _beside("customer rating", _RATING, zip(_LEVELS, ratings, strict=True))
    both = r"\b%s(?:[- ]\w+)?[- ]%s(?: range)?(?:,| and|/|,? as well as) (?:a )?(?:customer )?%s(?! (?:is|are|of|\d))"
    for level, price, rating in zip(_LEVELS, prices, ratings, strict=True):
        yield _Wording("customer rating", rating, both % (level, _PRICE, _RATING), sure=False)
        yield _Wording("priceRange", price, both % (level, _RATING, _PRICE), sure=False)
        # On its own, a level can be either.
        yield _Wording("priceRange", price, rf"\b{level}\b", sure=False)
        yield _Wording("customer rating", rating, rf"\b{level}\b", sure=False)
    for value, words in (("low", "poor|bad|terrible"), ("average", "decent"), ("high", "excellent|great|popular|top")):
        yield _Wording("customer rating", value, rf"\b(?:{words})\b", sure=False)


@cache
def _wordings() -> list[tuple[_Wording, re.Pattern[str]]]:
    """All wordings in the order of reading; loose ones for a level see what the sure ones leave."""
    parts = (*_places(), *_families(), *_kinds(), *_ratings(), *_prices(), *_levels())
    # A level shared by price and rating is read before other wordings can hide it.
    order = sorted(parts, key=lambda one: not one.sure and "as well as" in one.pattern, reverse=True)
    return [(one, re.compile(one.pattern)) for one in order]


_SAME = {**dict.fromkeys("\u2018\u2019`", "'"), **dict.fromkeys("\u2010\u2011\u2013\u2014", "-")}


def _fold(text: str) -> tuple[str, list[int]]:
    """The text in lower case, without accents and with single spaces, and the original index of each character."""
    kept: list[str] = []
    places: list[int] = []
    for location, char in enumerate(text):
        one = _SAME.get(char) or (" " if char.isspace() else unicodedata.normalize("NFKD", char)[0].lower()[0])
        if one != " " or not kept or kept[-1] != " ":
            kept.append(one)
            places.append(location)
    return "".join(kept), [*places, len(text)]


def mentions(text: str) -> list[Mention]:
    """The facts that a text states, by position; loose wordings may overlap others."""
    left, places = _fold(text)
    found = []
    for wording, pattern in _wordings():
        for match in pattern.finditer(left):
            start, end = match.span("v" if "v" in pattern.groupindex else 0)
            found.append(Mention(places[start], places[end - 1] + 1, wording.slot, wording.value, wording.sure))
            if wording.sure:
                left = left[: match.start()] + "_" * (match.end() - match.start()) + left[match.end() :]
    return sorted(found)
