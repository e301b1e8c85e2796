"""German: plots into sentences, with cases, genders, the verb in second place and at the end."""

from sae_translate.demo.lexicon import (
    ADVERBS,
    ANIMATE,
    ATTRIBUTES,
    FEELINGS,
    NAMES,
    NOUNS,
    NUMBERS,
    PHRASES,
    PLACES,
    PREPOSITIONS,
    VERBS,
)
from sae_translate.demo.plot import Adjunct, Clause, Plot, Sentence, Thing
from sae_translate.demo.tokens import Token, Words, join

# By gender (p: plural), then nominative, accusative, dative.
ARTICLES = {
    "m": ("der", "den", "dem"),
    "f": ("die", "die", "der"),
    "n": ("das", "das", "dem"),
    "p": ("die", "die", "den"),
}
_EIN = {"m": ("", "en", "em"), "f": ("e", "e", "er"), "n": ("", "", "em"), "p": ("e", "e", "en")}
_WEAK = {"m": ("e", "en", "en"), "f": ("e", "e", "en"), "n": ("e", "e", "en"), "p": ("en", "en", "en")}
_MIXED = {"m": ("er", "en", "en"), "f": ("e", "e", "en"), "n": ("es", "es", "en"), "p": ("en", "en", "en")}
_STRONG = {"m": ("er", "en", "em"), "f": ("e", "e", "er"), "n": ("es", "es", "em"), "p": ("e", "e", "en")}
_PRONOUNS = {
    "he": ("er", "ihn", "ihm"), "she": ("sie", "sie", "ihr"), "it": ("es", "es", "ihm"),
    "they": ("sie", "sie", "ihnen"),
    "I": ("ich", "mich", "mir"), "you": ("du", "dich", "dir"), "we": ("wir", "uns", "uns"),
}  # fmt: skip
_CASES = ("nom", "acc", "dat")
_OWNERS = {"m": ("sein", "his"), "f": ("ihr", "her"), "n": ("sein", "its"), "p": ("ihr", "their"),
           "my": ("mein", "my"), "your": ("dein", "your"), "our": ("unser", "our")}  # fmt: skip
_CONTRACTED = {
    ("in", "dem"): "im", ("an", "dem"): "am", ("zu", "dem"): "zum", ("zu", "der"): "zur", ("bei", "dem"): "beim",
    ("von", "dem"): "vom", ("in", "das"): "ins", ("an", "das"): "ans",
}  # fmt: skip
# Person and number (1, 2, 3, p), present then past.
_BE = {"present": {1: "bin", 2: "bist", 3: "ist", "p": "sind"}, "past": {3: "war", "p": "waren"}}
_HAVE = {"present": {1: "habe", 2: "hast", 3: "hat", "p": "haben"}, "past": {3: "hatte", "p": "hatten"}}
_CAN = {"present": {1: "kann", 2: "kannst", 3: "kann", "p": "können"}, "past": {3: "konnte", "p": "konnten"}}
_WANT = {"present": {1: "möchte", 2: "möchtest", 3: "will", "p": "wollen"}, "past": {3: "wollte", "p": "wollten"}}
_IRREGULAR = {"be": (_BE, "sein"), "have": (_HAVE, "haben")}
_QUESTIONS = {"where": "wo", "why": "warum"}


def render_german(plot: Plot) -> tuple[Token, ...]:
    """The plot told in German."""
    return join([_sentence(sentence, plot.tense) for sentence in plot.sentences], opening="„", closing="“")


def _sentence(sentence: Sentence, tense: str) -> Words:
    first, second = sentence.clause, sentence.second
    stop, comma = (".", "punct:."), (",", "punct:,")
    match sentence.link:
        case "":
            return [*_main(first, tense), stop]
        case "and":
            elided = second.subject.pronoun or second.subject == first.subject
            rest = [*_finite(second, tense), *_field(second), *_end(second)] if elided else _main(second, tense)
            return [*_main(first, tense), ("und", "function:and"), *rest, stop]
        case "but":
            return [*_main(first, tense), comma, ("aber", "function:but"), *_main(second, tense), stop]
        case "because":
            return [*_main(first, tense), comma, ("weil", "function:because"), *_subordinate(second, tense), stop]
        case "purpose":
            verb = VERBS[second.verb]
            purpose = [*_field(second), ("zu", "function:infinitive"), (verb.german, verb.concept)]
            return [*_main(first, tense), comma, ("um", "function:infinitive"), *purpose, stop]
        case "quote":
            return _quote(sentence, tense)


def _quote(sentence: Sentence, tense: str) -> Words:
    speech, saying = sentence.clause, sentence.second
    mark = "?" if speech.mood == "question" else "!" if saying.verb == "shout" or speech.mood == "command" else ""
    said = [*_finite(saying, tense), *_thing(saying.subject, "nom")]
    marks = [(mark, f"punct:{mark}")] if mark else []
    return [
        ("<", "punct:quote"),
        *_spoken(speech),
        *marks,
        (">", "punct:quote"),
        (",", "punct:,"),
        *said,
        (".", "punct:."),
    ]


def _spoken(clause: Clause) -> Words:
    """Direct speech, always in the present."""
    if clause.mood == "command":
        return [
            ("lass", "function:let"),
            ("uns", "function:we"),
            *_field(clause),
            (VERBS[clause.verb].german, VERBS[clause.verb].concept),
        ]
    if clause.mood == "statement":
        return _main(clause, "present")
    asked = [(_QUESTIONS[clause.asks], f"function:{clause.asks}")] if clause.asks else []
    return [*asked, *_finite(clause, "present"), *_thing(clause.subject, "nom"), *_field(clause), *_end(clause)]


def _main(clause: Clause, tense: str) -> Words:
    """A main clause: one element, the finite verb, the rest."""
    finite, subject = _finite(clause, tense), _thing(clause.subject, "nom")
    if clause.existential:
        return [("es", "function:there"), *_finite(clause, "past"), ("einmal", "time:once"), *subject]
    match clause.front:
        case "phrase":
            front = list(PHRASES[clause.phrase][1])
        case "adverb":
            front = _adverb(clause.adverb)
        case "adjunct":
            front = _adjunct(clause.adjuncts[0])
        case "":
            return [*subject, *finite, *_field(clause), *_end(clause)]
    return [*front, *finite, *subject, *_field(clause), *_end(clause)]


def _subordinate(clause: Clause, tense: str) -> Words:
    """A subordinate clause: the finite verb last, its prefix joined to it."""
    ((word, concept),) = _finite(clause, tense)
    if clause.modal:
        return [*_thing(clause.subject, "nom"), *_field(clause), *_end(clause), (word, concept)]
    prefix = VERBS[clause.verb].prefix if clause.verb in VERBS else ""
    return [*_thing(clause.subject, "nom"), *_field(clause), (prefix + word, concept)]


def _finite(clause: Clause, tense: str) -> Words:
    """The finite verb."""
    subject = clause.subject
    person = "p" if subject.many else subject.person
    if clause.modal:
        forms, concept = {"can": (_CAN, "function:can"), "want": (_WANT, "action:want")}[clause.modal]
        return [(forms[tense][person], concept)]
    if clause.verb in _IRREGULAR:
        return [(_IRREGULAR[clause.verb][0][tense][person], f"function:{clause.verb}")]
    verb = VERBS[clause.verb]
    assert subject.person == 3, "in speech a full verb stands behind a modal"
    if tense == "present":
        return [(verb.german if subject.many else verb.german_present, verb.concept)]
    plural = verb.german_past + ("n" if verb.german_past.endswith("te") else "en")
    return [(plural if subject.many else verb.german_past, verb.concept)]


def _end(clause: Clause) -> Words:
    """What closes the main clause: an infinitive behind a modal, or the separable prefix."""
    if clause.verb not in VERBS:
        return [(_IRREGULAR[clause.verb][1], f"function:{clause.verb}")] if clause.modal else []
    verb = VERBS[clause.verb]
    if clause.modal:
        return [(verb.prefix + verb.german, verb.concept)]
    return [(verb.prefix, f"function:{verb.prefix}")] if verb.prefix else []


def _field(clause: Clause) -> Words:
    """Between finite verb and end: pronouns, dative, time, what is known, how, where, what is new, whither."""
    verb = VERBS.get(clause.verb)
    case, link = (verb.case, verb.german_link) if verb else ("acc", "")
    words: Words = [("sich", "function:self")] if verb and verb.reflexive else []
    thing = clause.object
    whole = [] if thing is None else _linked(link, thing, case) if link else _thing(thing, case)
    pronoun = thing is not None and thing.pronoun and not link
    new = thing is not None and thing.determiner not in ("the", "his", "my") and not thing.name and not pronoun
    adjuncts = clause.adjuncts[1 if clause.front == "adjunct" else 0 :]
    towards = [adjunct for adjunct in adjuncts if _is_towards(adjunct)]
    resting = [adjunct for adjunct in adjuncts if not _is_towards(adjunct)]
    words += whole if pronoun else []
    words += _thing(clause.recipient, "dat") if clause.recipient is not None else []
    words += _adverb(clause.adverb) if clause.adverb and clause.front != "adverb" else []
    phrase = list(PHRASES[clause.phrase][1]) if clause.phrase and clause.front != "phrase" else []
    words += phrase if clause.phrase != "home" else []
    words += whole if not (pronoun or new or link) else []
    words += [("nicht", "function:not")] if clause.negated else []
    words += _adverb(clause.manner) if clause.manner else []
    for adjunct in resting:
        words += _adjunct(adjunct)
    words += whole if (new or link) and not pronoun else []
    for adjunct in towards:
        words += _adjunct(adjunct)
    words += phrase if clause.phrase == "home" else []
    words += [(FEELINGS[clause.feeling].german, FEELINGS[clause.feeling].concept)] if clause.feeling else []
    words += _thing(clause.predicate, "nom") if clause.predicate is not None else []
    for rank, attribute in enumerate(clause.attributes):
        words += [("und", "function:and")] if rank else []
        words.append((ATTRIBUTES[attribute].german, ATTRIBUTES[attribute].concept))
    return words


def _adverb(adverb: str) -> Words:
    return [(ADVERBS[adverb].german, ADVERBS[adverb].concept)]


def _is_towards(adjunct: Adjunct) -> bool:
    return adjunct.role == "to" or (
        adjunct.role in PREPOSITIONS and adjunct.role != "for" and PREPOSITIONS[adjunct.role][2] == "acc"
    )


def _adjunct(adjunct: Adjunct) -> Words:
    if adjunct.role in ("at", "to"):
        place = PLACES[adjunct.thing.noun]
        at = adjunct.role == "at"
        concept = f"function:{place.english_at if at else place.english_to}"
        preposition = place.german_at if at else place.german_to
        case = "dat" if at or preposition in ("zu", "nach") else "acc"
    else:
        english, preposition, case = PREPOSITIONS[adjunct.role]
        concept = f"function:{english}"
    return _linked(preposition, adjunct.thing, case, concept)


def _linked(preposition: str, thing: Thing, case: str, concept: str = "") -> Words:
    """Preposition and noun phrase, drawn together where German does (in dem: im)."""
    concept = concept or f"function:{ {'mit': 'with', 'auf': 'for', 'von': 'of'}[preposition] }"
    phrase = _thing(thing, case)
    if thing.noun and thing.determiner == "the" and (preposition, phrase[0][0]) in _CONTRACTED:
        return [(_CONTRACTED[preposition, phrase[0][0]], concept), *phrase[1:]]
    return [(preposition, concept), *phrase]


def _thing(thing: Thing, case: str) -> Words:
    """The noun phrase in this case."""
    words = _pronoun(thing, case) if thing.pronoun else _noun_phrase(thing, case)
    if thing.partner is not None:
        words = [*words, ("und", "function:and"), *_thing(thing.partner, case)]
    return words


def _pronoun(thing: Thing, case: str) -> Words:
    if thing.person == 3:
        key = {"m": "he", "f": "she", "n": "it", "p": "they"}["p" if thing.plural else thing.gender]
        if thing.noun and thing.noun not in ANIMATE and not thing.plural:
            return [(_PRONOUNS[key][_CASES.index(case)], "function:it")]
    else:
        key = "you" if thing.person == 2 else "we" if thing.plural else "I"
    return [(_PRONOUNS[key][_CASES.index(case)], f"function:{key}")]


def _noun_phrase(thing: Thing, case: str) -> Words:
    name = [(NAMES[thing.name].german, NAMES[thing.name].concept)] if thing.name else []
    if not thing.noun:
        return name
    noun, column = NOUNS[thing.noun], _CASES.index(case)
    gender = "p" if thing.plural else noun.gender
    article, endings = _determiner(thing, gender, column)
    attributes = [
        (inflect(ATTRIBUTES[key].german, endings[gender][column]), ATTRIBUTES[key].concept) for key in thing.attributes
    ]
    named = [("namens", "function:named")] if name and thing.determiner == "a" else []
    return [*article, *attributes, (decline(thing.noun, case, thing.plural), noun.concept), *named, *name]


def _determiner(thing: Thing, gender: str, column: int) -> tuple[Words, dict[str, tuple[str, str, str]]]:
    """The article or its stand-in, and the endings of the adjectives behind it."""
    match thing.determiner:
        case "the":
            return [(ARTICLES[gender][column], "function:the")], _WEAK
        case "none":
            return [], _STRONG
        case "a":
            return ([], _STRONG) if thing.plural else ([("ein" + _EIN[gender][column], "function:a")], _MIXED)
        case number if number in NUMBERS:
            return [(NUMBERS[number], f"number:{number}")], _STRONG
        case owner:
            stem, english = _OWNERS[thing.owner if owner == "his" else owner]
            return [(stem + _EIN[gender][column], f"function:{english}")], _MIXED


def decline(key: str, case: str, plural: bool) -> str:
    """The noun in this case and number."""
    noun = NOUNS[key]
    if plural:
        return noun.german_plural + ("n" if case == "dat" and noun.german_plural[-1] not in "ns" else "")
    if noun.weak and case != "nom":
        return noun.german + ("n" if noun.german.endswith(("e", "er", "ar")) else "en")
    return noun.german


def inflect(adjective: str, ending: str) -> str:
    """The adjective with its ending (dunkel: dunkle, weise: weise)."""
    if adjective.endswith("el"):
        adjective = adjective[:-2] + "l"
    return adjective.removesuffix("e") + ending
