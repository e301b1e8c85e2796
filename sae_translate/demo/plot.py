"""Plot: what happens in a story, said in no language."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """Somebody or something that is mentioned."""

    noun: str = ""
    "Key of a noun, or empty for a name or a pronoun."
    name: str = ""
    "Key of a name; with a noun it stands behind it (a girl named Anna)."
    determiner: str = "the"
    "the, a, none, my, your, our, his (of `owner`), or a number."
    attributes: tuple[str, ...] = ()
    plural: bool = False
    pronoun: bool = False
    gender: str = "n"
    "Of the referent: m, f or n; chooses he, she or it, and his or her of what it owns. Things are `it` in English."
    owner: str = ""
    "Gender of the owner where the determiner is `his`; `p` for several."
    person: int = 3
    partner: "Thing | None" = None
    "The second of a pair (Anna and her mother), which makes a plural."

    @property
    def many(self) -> bool:
        return self.plural or self.partner is not None


@dataclass(frozen=True)
class Adjunct:
    """Where, whither, whence or with whom."""

    role: str
    "at, to (of a place), or a key of the prepositions."
    thing: Thing


@dataclass(frozen=True)
class Clause:
    """One happening: who does what to whom, where, when and how."""

    subject: Thing
    verb: str
    "Key of a verb, or be, have."
    object: Thing | None = None
    recipient: Thing | None = None
    feeling: str = ""
    attributes: tuple[str, ...] = ()
    "What the subject is (red, old and heavy)."
    predicate: Thing | None = None
    "The noun that the subject is (it was a good day)."
    adjuncts: tuple[Adjunct, ...] = ()
    phrase: str = ""
    "Time, or a fixed place (home): key of a phrase."
    adverb: str = ""
    manner: str = ""
    modal: str = ""
    "want, can or must, with the verb in the infinitive."
    negated: bool = False
    front: str = ""
    "What opens the sentence: phrase, adverb, adjunct, or nothing."
    mood: str = "statement"
    "statement, question, or command (let us ...)."
    asks: str = ""
    "Question word: where or why."
    existential: bool = False
    "there was ..."


@dataclass(frozen=True)
class Sentence:
    """A clause, joined to another where `link` says so, or spoken by somebody."""

    clause: Clause
    link: str = ""
    "and, but, because, purpose (to buy bread), or quote (the second clause says who speaks)."
    second: Clause | None = None


@dataclass(frozen=True)
class Plot:
    """A story in no language."""

    seed: str
    tense: str
    "past or present."
    arc: str
    sentences: tuple[Sentence, ...]
