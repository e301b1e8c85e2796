"""The teller: draws one plot sentence by sentence, and knows the scenes that every story is made of."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sae_translate.demo.lexicon import NAME_GENDER, NAMES, NOUNS, NUMBERS
from sae_translate.demo.plot import Adjunct, Clause, Sentence, Thing
from sae_translate.demo.world import (
    ANIMALS_OF,
    DEEDS_OF,
    DRINKS,
    FOOD_OF,
    GOALS_OF,
    LOOKS_OF,
    MOVE_OF,
    OBJECTS_OF,
    RELATIVES,
    SOUND_OF,
    TOYS,
    TREATS,
    WEATHER,
)

I = Thing(pronoun=True, person=1)  # noqa: E741
YOU = Thing(pronoun=True, person=2)
WE = Thing(pronoun=True, person=1, plural=True)
IT = Thing(pronoun=True)

_SLOW = frozenset(["turtle", "snail", "cow", "donkey", "elephant", "crab", "hedgehog"])
# deed | what it is done to
_OBJECTS_OF_DEED = {
    "play": "ball kite doll teddy",
    "water": "flower rose tree",
    "plant": "flower tree rose seed",
    "climb": "tree",
    "sing": "song",
    "seek": "nut stick feather",
}


def skewed(rng: random.Random, options: Iterable[str] | str, skew: float = 2.0) -> str:
    """One of the options, the earlier the likelier: weights 1 / (rank + skew), as word frequencies fall."""
    options = options.split() if isinstance(options, str) else list(options)
    return rng.choices(options, [1 / (rank + skew) for rank in range(len(options))])[0]


def gender_of(noun: str) -> str:
    """Gender of a referent that has no name: as in German."""
    return NOUNS[noun].gender


@dataclass
class Teller:
    """Draws one plot; remembers the hero, and who was the last subject."""

    rng: random.Random
    sentences: list[Sentence] = field(default_factory=list)
    hero: Thing = field(default_factory=Thing)
    last: Thing | None = None

    # ---- drawing

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, options: Iterable[str] | str) -> str:
        return skewed(self.rng, options)

    def maybe(self, options: str, p: float) -> str:
        return self.pick(options) if self.chance(p) else ""

    def sample(self, options: str, n: int) -> tuple[str, ...]:
        words = options.split()
        return tuple(self.rng.sample(words, min(n, len(words))))

    # ---- naming

    def he(self, thing: Thing) -> Thing:
        """A pronoun for the thing."""
        return Thing(thing.noun, pronoun=True, gender=thing.gender, plural=thing.many, person=thing.person)

    def of(self, owner: Thing, noun: str, **more) -> Thing:
        """What belongs to the owner (her ball)."""
        gender = RELATIVES.get(noun) or gender_of(noun)
        whose = "p" if owner.many else owner.gender
        return Thing(noun, determiner="his", owner=whose, **({"gender": gender} | more))

    def known(self, thing: Thing) -> Thing:
        """The thing as it is called once it is known: by its name, or as her ball, or the cat."""
        if thing.name:
            return Thing(name=thing.name, gender=thing.gender)
        return thing if thing.determiner == "his" else replace(thing, determiner="the", attributes=())

    def subject(self, thing: Thing) -> Thing:
        """The thing as a subject: a pronoun at times when it was the subject before."""
        known = self.known(thing)
        again = self.last == known and self.chance(0.6)
        self.last = known
        return self.he(known) if again else known

    def looks(self, noun: str, p: float = 0.5) -> tuple[str, ...]:
        return (self.pick(LOOKS_OF[noun]),) if noun in LOOKS_OF and self.chance(p) else ()

    def the(self, noun: str, p: float = 0.0) -> Thing:
        return Thing(noun, attributes=self.looks(noun, p), gender=gender_of(noun))

    def a(self, noun: str, p: float = 0.5) -> Thing:
        determiner = "none" if NOUNS[noun].mass else "a"
        return Thing(noun, determiner=determiner, attributes=self.looks(noun, p), gender=gender_of(noun))

    def some(self, noun: str) -> Thing:
        """Several: two apples, red apples."""
        if NOUNS[noun].mass:
            return self.a(noun)
        if self.chance(0.6):
            return Thing(noun, determiner=self.pick(NUMBERS), plural=True)
        return Thing(noun, determiner="none", plural=True, attributes=self.looks(noun, 0.7))

    def relative(self, options: str = " ".join(RELATIVES)) -> Thing:
        """A relative of the hero."""
        return self.of(self.hero, self.pick(options))

    def companion(self, p: float = 1.0) -> Thing | None:
        """A relative or a friend of the hero, with probability p."""
        if not self.chance(p):
            return None
        if self.chance(0.6):
            return self.relative()
        name = self.pick(name for name in NAMES if name != self.hero.name)
        gender = NAME_GENDER[name]
        return self.of(self.hero, "friend" if gender == "m" else "friend_f", gender=gender, name=name)

    # ---- telling

    def tell(self, clause: Clause, link: str = "", second: Clause | None = None) -> None:
        """One sentence. `then` and `later` always open it."""
        if clause.adverb in ("then", "later") and not clause.front:
            clause = replace(clause, front="adverb")
        self.sentences.append(Sentence(clause, link, second))

    def does(self, who: Thing, verb: str, what: Thing | None = None, *adjuncts: Adjunct, **more) -> None:
        """Somebody known does something."""
        self.tell(Clause(self.subject(who), verb, what, adjuncts=adjuncts, **more))

    def appears(self, who: Thing, verb: str, *adjuncts: Adjunct, **more) -> None:
        """Somebody new does something."""
        self.tell(Clause(who, verb, adjuncts=adjuncts, **more))
        self.last = self.known(who)

    def feels(self, who: Thing, options: str, adverb: str = "") -> None:
        self.does(who, "be", feeling=self.pick(options), adverb=adverb, front="adverb" if adverb else "")

    def is_like(self, thing: Thing, *attributes: str, adverb: str = "") -> None:
        """What the thing is like; drawn where nothing is given."""
        drawn = attributes or self.sample(LOOKS_OF[thing.noun], self.rng.choice([1, 1, 2]))
        self.does(thing, "be", attributes=drawn, adverb=adverb, front="adverb" if adverb else "")

    def says(self, who: Thing, clause: Clause, verb: str = "say") -> None:
        self.tell(clause, "quote", Clause(self.subject(who), verb))

    def asks_for_help(self, who: Thing) -> None:
        self.says(who, Clause(YOU, "help", I, modal="can", mood="question"), "ask")

    # ---- scenes

    def introduce_child(self) -> None:
        name = self.pick(NAMES)
        self.hero = Thing(name=name, gender=NAME_GENDER[name])
        noun = "girl" if self.hero.gender == "f" else "boy"
        look = (self.pick("little clever kind funny good" + " young" * (noun == "girl")),)
        child = Thing(noun, name=name, determiner="a", attributes=look, gender=self.hero.gender)
        match self.pick("once lives is"):
            case "once":
                self.appears(child, "be", existential=True)
            case "lives":
                home = self.a(self.pick("house village farm town castle"), 0.8)
                self.appears(child, "live", Adjunct("at", home))
            case "is":
                self.appears(self.hero, "be", predicate=replace(child, name=""))
        if self.chance(0.3):
            self.does(self.hero, "have", self.a(self.pick(("dog", "cat", *TOYS)), 0.8))

    def introduce_animal(self, places: str = "forest farm meadow lake garden pond river zoo island sea") -> str:
        """An animal as the hero; returns the place it lives at."""
        place = self.pick(places)
        animal = self.a(self.pick(ANIMALS_OF[place]), 1.0)
        self.hero = self.known(animal)
        if self.chance(0.4):
            self.appears(animal, "be", existential=True)
            self.does(self.hero, "live", None, Adjunct("at", self.the(place)))
        else:
            self.appears(animal, "live", Adjunct("at", self.the(place, 0.5)))
        return place

    def weather(self, season: str = "any") -> None:
        phrase = self.maybe("morning noon", 0.3)
        when = {"phrase": phrase, "front": "phrase" if phrase else ""}
        match self.pick(WEATHER[season]):
            case "shine":
                clause = Clause(self.the("sun"), "shine", **when)
            case "sun":
                clause = Clause(self.the("sun"), "be", attributes=self.looks("sun", 1.0))
            case "rain" | "snow" as verb:
                clause = Clause(IT, verb, **when)
            case "blow":
                clause = Clause(self.the("wind"), "blow", manner=self.pick("loudly quietly"))
            case "birds":
                trees = Adjunct("in", Thing("tree", plural=True))
                clause = Clause(Thing("bird", plural=True), "sing", adjuncts=(trees,))
            case "white":
                clause = Clause(Thing("tree", plural=True), "be", attributes=("white",))
            case "leaves":
                clause = Clause(Thing("leaf", plural=True), "be", attributes=self.sample("yellow brown red", 2))
            case "cloud":
                clause = Clause(Thing("cloud", plural=True), "be", attributes=(self.pick("dark white gray"),))
            case attribute:
                clause = Clause(IT, "be", attributes=(attribute,), **when)
        self.tell(clause)
        self.last = None

    def go(self, place: str, companion: Thing | None = None) -> None:
        """The hero goes to the place."""
        phrase = self.maybe("one_day morning evening noon", 0.5)
        adverb = "" if phrase else self.maybe("then today later soon", 0.3)
        front = "adverb" if adverb else "phrase" if phrase and self.chance(0.75) else ""
        to = Adjunct("to", self.the(place))
        on_foot = ["go", "run"] + ["walk"] * (place in ("forest", "park", "hill", "field", "meadow"))
        verb = "go" if companion else self.pick(on_foot)
        if companion is not None and self.chance(0.5):
            pair = replace(self.known(self.hero), partner=companion)
            self.appears(pair, "go", to, phrase=phrase, adverb=adverb, front=front)
            self.last = None
        else:
            beside = (Adjunct("with", companion),) if companion is not None else ()
            self.does(self.hero, verb, None, to, *beside, phrase=phrase, adverb=adverb, front=front)

    def meet_animal(self, place: str) -> Thing:
        """The hero sees an animal; returns it."""
        noun = self.pick([name for name in ANIMALS_OF[place].split() if name != self.hero.noun] or ["bird"])
        verb = "hear" if noun in SOUND_OF and self.chance(0.2) else self.pick("see meet watch")
        at = (Adjunct("at", self.the(place)),) if self.chance(0.6) else ()
        adverb = self.maybe("suddenly then", 0.3)
        front = "adverb" if adverb else "adjunct" if at and self.chance(0.4) else ""
        self.does(self.hero, verb, self.a(noun, 0.7), *at, adverb=adverb, front=front)
        return self.the(noun)

    def animal_acts(self, animal: Thing) -> None:
        """The animal makes its sound, eats its food, moves in its way, or is looked at."""
        noun, move = animal.noun, MOVE_OF[animal.noun]
        options = ["move", "look"] + ["sound"] * (noun in SOUND_OF) + ["food"] * (noun in FOOD_OF)
        match self.rng.choice(options):
            case "sound" if self.chance(0.3) and move in ("run", "jump", "fly", "swim"):
                subject = self.subject(animal)
                self.tell(Clause(subject, SOUND_OF[noun]), "and", Clause(subject, move))
            case "sound":
                self.does(animal, SOUND_OF[noun], manner=self.maybe("loudly quietly", 0.5))
            case "food":
                meal = self.a(self.pick(FOOD_OF[noun]), 0.4)
                verb = "bring" if noun == "bee" else "drink" if meal.noun == "milk" else "devour"
                self.does(animal, verb, meal, manner=self.maybe("quickly slowly gladly", 0.3))
            case "move" if move == "climb":
                self.does(animal, move, self.a("tree"), manner=self.maybe("quickly", 0.4))
            case "move":
                role, goal = self.rng.choice(GOALS_OF[move])
                pace = self.maybe("slowly quietly" if noun in _SLOW else "quickly quietly", 0.5)
                self.does(animal, move, None, Adjunct(role, self.the(goal)), manner=pace)
            case "look":
                self.is_like(animal)

    def see_object(self, place: str) -> None:
        noun = self.pick(OBJECTS_OF[place])
        at = (Adjunct("at", self.the(place)),) if self.chance(0.5) else ()
        front = "adjunct" if at and self.chance(0.5) else ""
        self.does(self.hero, self.pick("see find"), self.a(noun, 0.6), *at, front=front)
        if noun in LOOKS_OF and self.chance(0.5):
            self.is_like(self.the(noun))

    def deed(self, place: str) -> None:
        """The hero does what is done at the place."""
        verb = self.pick(DEEDS_OF.get(place, "walk"))
        at = (Adjunct("at", self.the(place)),) if verb in ("walk", "run") or self.chance(0.6) else ()
        front = "adjunct" if at and self.chance(0.3) else ""
        if verb == "dig":
            self.does(self.hero, verb, None, Adjunct("with", self.a("shovel", 0.4)), *at)
        elif verb == "play":
            self.does(self.hero, verb, self.of(self.hero, self.pick(_OBJECTS_OF_DEED[verb])), *at)
        elif verb == "watch":
            noun = self.pick(ANIMALS_OF[place].split() + OBJECTS_OF[place].split())
            self.does(self.hero, verb, self.a(noun, 0.4), *at, front=front)
        else:
            what = self.a(self.pick(_OBJECTS_OF_DEED[verb]), 0.4) if verb in _OBJECTS_OF_DEED else None
            if self.chance(0.2):
                self.does(self.hero, verb, what, *at, modal="want")
            else:
                self.does(self.hero, verb, what, *at, front=front)

    def meal(self, foods: Iterable[str] = TREATS) -> None:
        food, drink = self.a(self.pick(foods), 0.4), self.a(self.pick(DRINKS), 0.4)
        match self.pick("eat both drink"):
            case "both":
                subject = self.subject(self.hero)
                self.tell(Clause(subject, "eat", food), "and", Clause(subject, "drink", drink))
            case "eat":
                kitchen = (Adjunct("at", self.the("kitchen")),) if self.chance(0.3) else ()
                self.does(self.hero, "eat", food, *kitchen)
                if self.chance(0.4):
                    self.is_like(self.the(food.noun))
            case "drink":
                self.does(self.hero, "drink", drink)

    def sleep(self, who: Thing) -> None:
        night = {"phrase": "night", "front": "phrase"}
        match self.pick("bed tired dream moon"):
            case "bed":
                bed = Adjunct("in", self.of(who, "bed", attributes=self.looks("bed", 0.6)))
                self.does(who, "sleep", None, *((bed,) if who.name else ()), **night)
            case "tired":
                tired = Clause(self.subject(who), "be", feeling="tired", phrase="evening", front="phrase")
                self.tell(tired, "and", Clause(self.he(who), "sleep", adverb="soon"))
            case "dream":
                self.does(who, "dream", self.a(self.pick("star horse treasure sea cake castle island")), **night)
            case "moon":
                self.tell(Clause(self.the("moon", 0.2), "shine", **night))
                self.last = None

    def ending(self, who: Thing | None = None) -> None:
        """Home again, content."""
        who = who or self.hero
        match self.pick("home day feel"):
            case "home":
                self.does(who, "go", phrase="home", adverb=self.pick("then later soon"), front="adverb")
            case "day":
                day = Thing("day", determiner="a", attributes=(self.pick("beautiful good long funny"),))
                self.tell(Clause(IT, "be", predicate=day))
        if self.chance(0.6):
            self.feels(who, "happy tired thankful proud excited", self.maybe("finally now", 0.4))
        if self.chance(0.5):
            self.sleep(who)
