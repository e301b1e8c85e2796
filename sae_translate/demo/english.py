"""English: plots into sentences."""

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

_SUBJECTS = {"m": "he", "f": "she", "n": "it", "p": "they"}
_OBJECTS = {"he": "him", "she": "her", "it": "it", "they": "them", "I": "me", "you": "you", "we": "us"}
_OWNERS = {"m": "his", "f": "her", "n": "its", "p": "their", "my": "my", "your": "your", "our": "our"}


def render_english(plot: Plot) -> tuple[Token, ...]:
    """The plot told in English."""
    return join([_sentence(sentence, plot.tense) for sentence in plot.sentences], opening="“", closing="”")


def _sentence(sentence: Sentence, tense: str) -> Words:
    first, second = sentence.clause, sentence.second
    match sentence.link:
        case "":
            return [*_clause(first, tense), (".", "punct:.")]
        case "and":
            elided = second.subject.pronoun or second.subject == first.subject
            rest = _predicate(second, tense) if elided else _clause(second, tense)
            return [*_clause(first, tense), ("and", "function:and"), *rest, (".", "punct:.")]
        case "but":
            but = [(",", "punct:,"), ("but", "function:but")]
            return [*_clause(first, tense), *but, *_clause(second, tense), (".", "punct:.")]
        case "because":
            return [*_clause(first, tense), ("because", "function:because"), *_clause(second, tense), (".", "punct:.")]
        case "purpose":
            return [*_clause(first, tense), ("to", "function:infinitive"), *_rest(second, "base"), (".", "punct:.")]
        case "quote":
            return _quote(sentence, tense)


def _quote(sentence: Sentence, tense: str) -> Words:
    speech, saying = sentence.clause, sentence.second
    mark = "?" if speech.mood == "question" else "!" if saying.verb == "shout" or speech.mood == "command" else ","
    subject, verb = _thing(saying.subject), [(_verb(saying, tense), VERBS[saying.verb].concept)]
    by = [*subject, *verb] if saying.subject.pronoun else [*verb, *subject]
    spoken = _spoken(speech)
    return [("<", "punct:quote"), *spoken, (mark, f"punct:{mark}"), (">", "punct:quote"), *by, (".", "punct:.")]


def _spoken(clause: Clause) -> Words:
    """Direct speech, always in the present."""
    if clause.mood == "command":
        return [("let", "function:let"), ("us", "function:we"), *_rest(clause, "base")]
    if clause.mood == "statement":
        return _clause(clause, "present")
    subject = _thing(clause.subject)
    asked = [(clause.asks, f"function:{clause.asks}")] if clause.asks else []
    if clause.verb == "be":
        return [*asked, (_verb(clause, "present"), "function:be"), *subject, *_rest(clause, "none")]
    if clause.modal == "want":
        return [
            ("do", "function:do"),
            *subject,
            ("want", "action:want"),
            ("to", "function:infinitive"),
            *_rest(clause, "base"),
        ]
    return [(clause.modal, f"function:{clause.modal}"), *subject, *_rest(clause, "base")]


def _clause(clause: Clause, tense: str) -> Words:
    if clause.existential:
        return [("once", "time:once"), ("there", "function:there"), ("was", "function:be"), *_thing(clause.subject)]
    subject = _thing(clause.subject)
    match clause.front:
        case "phrase":
            front = list(PHRASES[clause.phrase][0])
        case "adverb":
            front = _adverb(clause.adverb)
        case "adjunct":
            front = _adjunct(clause.adjuncts[0])
        case "":
            front = []
    return [*front, *subject, *_predicate(clause, tense)]


def _predicate(clause: Clause, tense: str) -> Words:
    """The verb and what follows it."""
    adverb = _adverb(clause.adverb) if clause.adverb and clause.front != "adverb" else []
    if not clause.modal:
        concept = f"function:{clause.verb}" if clause.verb in ("be", "have") else VERBS[clause.verb].concept
        verb = [(_verb(clause, tense), concept)]
        return (
            [*verb, *adverb, *_rest(clause, "none")]
            if clause.verb == "be"
            else [*adverb, *verb, *_rest(clause, "none")]
        )
    if clause.modal == "can":
        can = "could" if tense == "past" else "cannot" if clause.negated else "can"
        negation = [("not", "function:not")] if clause.negated and can == "could" else []
        return [(can, "function:can"), *negation, *adverb, *_rest(clause, "base")]
    want = "wanted" if tense == "past" else "wants" if _third(clause.subject) else "want"
    return [*adverb, (want, "action:want"), ("to", "function:infinitive"), *_rest(clause, "base")]


def _rest(clause: Clause, verb: str) -> Words:
    """Everything behind the finite verb, with the bare verb first where `verb` is `base`."""
    words: Words = []
    if verb == "base":
        words += (
            [("have", "function:have")]
            if clause.verb == "have"
            else [(VERBS[clause.verb].english, VERBS[clause.verb].concept)]
        )
    link = VERBS[clause.verb].english_link if clause.verb in VERBS else ""
    if link and (clause.object is not None or link == "up"):
        words.append((link, f"function:{link}"))
    if clause.object is not None:
        words += _thing(clause.object, subject=False)
    if clause.recipient is not None:
        words += [("to", "function:to"), *_thing(clause.recipient, subject=False)]
    if clause.feeling:
        words.append((clause.feeling, FEELINGS[clause.feeling].concept))
    if clause.predicate is not None:
        words += _thing(clause.predicate)
    for rank, attribute in enumerate(clause.attributes):
        words += [("and", "function:and")] if rank else []
        words.append((attribute, ATTRIBUTES[attribute].concept))
    if clause.manner:
        words += _adverb(clause.manner)
    for adjunct in clause.adjuncts[1 if clause.front == "adjunct" else 0 :]:
        words += _adjunct(adjunct)
    if clause.phrase and clause.front != "phrase":
        words += PHRASES[clause.phrase][0]
    return words


def _adverb(adverb: str) -> Words:
    return [(ADVERBS[adverb].english, ADVERBS[adverb].concept)]


def _adjunct(adjunct: Adjunct) -> Words:
    if adjunct.role in ("at", "to"):
        place = PLACES[adjunct.thing.noun]
        word = place.english_at if adjunct.role == "at" else place.english_to
    else:
        word = PREPOSITIONS[adjunct.role][0]
    return [(word, f"function:{word}"), *_thing(adjunct.thing, subject=False)]


def _third(thing: Thing) -> bool:
    return thing.person == 3 and not thing.many


def _verb(clause: Clause, tense: str) -> str:
    """The finite form."""
    subject = clause.subject
    if clause.verb == "be":
        singular = not subject.many and subject.person != 2
        if tense == "past":
            return "was" if singular else "were"
        return "are" if not singular else "am" if subject.person == 1 else "is"
    if clause.verb == "have":
        return "had" if tense == "past" else "has" if _third(subject) else "have"
    verb = VERBS[clause.verb]
    if tense == "past":
        return verb.english_past
    return third_person(verb.english) if _third(subject) else verb.english


def third_person(verb: str) -> str:
    """The third person singular of the present."""
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def _thing(thing: Thing, subject: bool = True) -> Words:
    """The noun phrase."""
    words = _pronoun(thing, subject) if thing.pronoun else _noun_phrase(thing)
    if thing.partner is not None:
        words = [*words, ("and", "function:and"), *_thing(thing.partner, subject)]
    return words


def _pronoun(thing: Thing, subject: bool) -> Words:
    if thing.person == 3:
        inanimate = thing.noun and thing.noun not in ANIMATE
        word = _SUBJECTS["p" if thing.plural else "n" if inanimate else thing.gender]
    else:
        word = "you" if thing.person == 2 else "we" if thing.plural else "I"
    return [(word if subject else _OBJECTS[word], f"function:{word}")]


def _noun_phrase(thing: Thing) -> Words:
    name = [(NAMES[thing.name].english, NAMES[thing.name].concept)] if thing.name else []
    if not thing.noun:
        return name
    noun = NOUNS[thing.noun]
    attributes = [(attribute, ATTRIBUTES[attribute].concept) for attribute in thing.attributes]
    words = [*attributes, (noun.english_plural if thing.plural else noun.english, noun.concept)]
    match thing.determiner:
        case "none":
            pass
        case "a":
            words = [("an" if words[0][0][0] in "aeiou" else "a", "function:a"), *words]
        case "the":
            words = [("the", "function:the"), *words]
        case number if number in NUMBERS:
            words = [(number, f"number:{number}"), *words]
        case owner:
            word = _OWNERS[thing.owner if owner == "his" else owner]
            words = [(word, f"function:{word}"), *words]
    named = [("named", "function:named")] if name and thing.determiner == "a" else []
    return [*words, *named, *name]
