"""Arcs: the kinds of story there are, and how a plot is drawn from its seed."""

import random
from collections.abc import Callable
from dataclasses import replace

from sae_translate.demo.lexicon import ANIMATE, NOUNS
from sae_translate.demo.plot import Adjunct, Clause, Plot, Thing
from sae_translate.demo.teller import IT, WE, YOU, I, Teller, gender_of, skewed
from sae_translate.demo.world import (
    ANIMALS_OF,
    CLOTHES,
    DRINKS,
    FOOD_OF,
    LOOKS_OF,
    OUTDOORS,
    SEASON_PLACES,
    SOUND_OF,
    TOYS,
    TREATS,
)

CHILDREN = Thing("child", plural=True)


def walk(t: Teller) -> None:
    """A walk, and who is met on it."""
    t.introduce_child()
    if t.chance(0.6):
        t.weather()
    place = t.pick(OUTDOORS)
    t.go(place, t.companion(0.5))
    if t.chance(0.5):
        t.is_like(t.the(place))
    for _ in range(t.rng.choice([1, 2, 2])):
        animal = t.meet_animal(place)
        t.animal_acts(animal)
        if t.chance(0.4):
            t.animal_acts(animal)
        if t.chance(0.3):
            t.says(t.hero, Clause(animal, "be", attributes=t.looks(animal.noun, 1.0)), "shout")
    if t.chance(0.6):
        t.see_object(place)
    t.deed(place)
    t.ending()


def lost_thing(t: Teller) -> None:
    """Something is lost, looked for, and found by another."""
    t.introduce_child()
    place, lost = t.pick(OUTDOORS), t.pick((*TOYS, *CLOTHES, "key"))
    t.go(place, t.companion(0.4))
    if t.chance(0.5):
        t.deed(place)
    mine = t.of(t.hero, lost)
    t.does(t.hero, "lose", replace(mine, attributes=t.looks(lost, 0.6)), adverb=t.maybe("suddenly", 0.4))
    t.feels(t.hero, "sad worried angry")
    if t.chance(0.6):
        whose = Thing(lost, determiner="my", gender=gender_of(lost))
        t.says(t.hero, Clause(whose, "be", mood="question", asks="where"), "ask")
    for spot in t.sample("under behind near", t.rng.choice([1, 2])):
        where = t.the(t.pick("tree bush stone" if spot == "under" else "tree house bush stone"))
        t.does(t.hero, "seek", mine, Adjunct(spot, where))
    match t.pick("but alone neither"):
        case "but":
            failed = Clause(t.he(t.hero), "find", t.he(mine), modal="can", negated=True)
            t.tell(Clause(t.subject(t.hero), "seek", mine), "but", failed)
        case "alone":
            t.does(t.hero, "find", mine, modal="can", negated=True)
    helper = t.meet_animal(place) if t.chance(0.6) else t.companion()
    if t.chance(0.5):
        t.asks_for_help(t.hero)
    found, adverb = t.the(lost), t.maybe("finally", 0.5)
    t.does(helper, "find", found, Adjunct("under", t.the("tree")), adverb=adverb, front="adverb" if adverb else "")
    t.does(helper, t.pick("give bring"), found, recipient=t.hero)
    if t.chance(0.7):
        t.does(t.hero, "thank", t.known(helper))
    if t.chance(0.5):
        reason = Clause(t.he(t.hero), "have", mine, manner="again")
        t.tell(Clause(t.subject(t.hero), "be", feeling="happy"), "because", reason)
    t.ending()


def animal_friends(t: Teller) -> None:
    """Two animals meet and become friends."""
    place = t.introduce_animal()
    if t.chance(0.6):
        t.feels(t.hero, "lonely bored curious")
    if t.chance(0.4):
        t.weather()
    t.animal_acts(t.hero)
    other = t.meet_animal(place)
    if t.chance(0.5):
        feeling = t.pick("sad hungry lonely tired")
        t.says(other, Clause(YOU, "be", feeling=feeling, mood="question", asks="why"), "ask")
        t.says(t.hero, Clause(I, "be", feeling=t.pick("lonely hungry bored thirsty")), "answer")
    else:
        t.animal_acts(other)
    if t.chance(0.6):
        t.says(other, Clause(YOU, "play", I, modal="want", mood="question"), "ask")
    both = replace(t.hero, partner=other)
    t.does(both, t.pick("play run dance"), manner="together", adverb=t.pick("then soon"), front="adverb")
    if t.chance(0.5):
        t.does(both, "laugh", manner="loudly")
    if t.chance(0.5):
        good = ("good",) if t.chance(0.6) else ()
        friends = Thing("friend", determiner="none", plural=True, attributes=good)
        t.does(both, "be", predicate=friends, adverb="now", front="adverb")
    t.ending(both)


def hungry_animal(t: Teller) -> None:
    """An animal looks for food and is fed."""
    place = t.introduce_animal()
    t.feels(t.hero, "hungry thirsty")
    food = t.pick(FOOD_OF.get(t.hero.noun, "worm nut"))
    t.does(t.hero, "seek", t.a(food, 0.4), Adjunct("at", t.the(place)))
    if t.chance(0.5):
        t.feels(t.hero, "sad tired angry")
    giver = t.meet_animal(place) if t.chance(0.5) else t.the(t.pick("farmer girl boy child baker"))
    t.does(giver, "give", t.a(food, 0.6), recipient=t.hero)
    t.does(t.hero, "drink" if food in DRINKS else "devour", t.the(food), manner=t.maybe("quickly gladly", 0.5))
    t.ending()


def hungry_child(t: Teller) -> None:
    """A child is hungry and somebody cooks."""
    t.introduce_child()
    feeling = t.pick("hungry thirsty")
    t.feels(t.hero, feeling)
    if t.chance(0.4):
        t.says(t.hero, Clause(I, "be", feeling=feeling))
    cook, dish = t.relative(), t.pick("soup cake bread potato egg")
    meal = t.some(dish) if dish in ("potato", "egg") else t.a(dish, 0.6)
    kitchen = (Adjunct("at", t.the("kitchen")),) if t.chance(0.6) else ()
    t.does(cook, "bake" if dish in ("cake", "bread") else "cook", meal, *kitchen)
    if t.chance(0.5):
        t.is_like(t.the("table"), t.pick("full clean big"))
    t.meal(("soup", "bread", "cake", *TREATS))
    t.does(t.hero, "thank", cook)
    t.ending()


def making(t: Teller) -> None:
    """Something is made."""
    t.introduce_child()
    made, verb = t.pick(
        "picture:paint boat:build tower:build letter:write cake:bake kite:build house:build story:write"
    ).split(":")
    t.does(t.hero, verb, t.a(made, 0.6), modal="want")
    helper = t.companion(0.5)
    if helper is not None:
        t.does(helper, "help", t.he(t.hero))
    if made in ("tower", "house"):
        t.does(t.hero, t.pick("fetch carry"), t.some("stone"))
    elif made in ("boat", "kite"):
        t.does(t.hero, t.pick("fetch seek"), t.some("stick"))
    elif made == "cake":
        subject = t.subject(t.hero)
        t.tell(Clause(subject, "take", t.some("egg")), "and", Clause(subject, "fetch", t.a("milk")))
    t.does(t.hero, verb, t.the(made), manner=t.pick("carefully slowly quickly"))
    t.is_like(t.the(made))
    if t.chance(0.5):
        whom = t.relative("mother grandmother father grandfather")
        t.does(t.hero, "show", t.the(made), recipient=whom, adverb=t.maybe("then", 0.5))
    t.feels(t.hero, "proud happy")
    t.ending()


def gift(t: Teller) -> None:
    """A present."""
    t.introduce_child()
    giver, present = t.companion(), t.pick((*TOYS, *CLOTHES, "book", "flute", "picture", "dog", "cat", "rabbit"))
    one_day = {"phrase": "one_day", "front": "phrase"}
    if t.chance(0.4) and present not in ANIMATE:
        shop = Adjunct("to", t.the(t.pick("shop market town")))
        buys = Clause(t.he(giver), "buy", t.a(present))
        t.tell(Clause(giver, "go", adjuncts=(shop,), **one_day), "purpose", buys)
        t.does(giver, "give", t.the(present), recipient=t.hero)
    else:
        t.does(giver, "give", t.a(present, 0.8), recipient=t.hero, **one_day)
    t.is_like(t.the(present))
    t.feels(t.hero, "happy surprised excited thankful")
    if t.chance(0.5):
        t.does(t.hero, t.pick("hug kiss thank"), t.known(giver))
    if present in ANIMATE:
        t.animal_acts(t.the(present))
        t.does(t.hero, t.pick("stroke feed love"), t.the(present))
    elif present in CLOTHES:
        t.does(t.hero, "wear", t.the(present), phrase="every_day")
    elif present == "book":
        t.does(t.hero, "read", t.the(present), phrase="evening")
    elif present in TOYS:
        t.does(t.hero, "play", t.the(present), phrase=t.maybe("every_day", 0.5))
    t.ending()


def fear(t: Teller) -> None:
    """Fear in the dark, and comfort."""
    t.introduce_child()
    noun = t.pick("owl wolf bear mouse")
    dark = t.the(t.pick("house forest street"))
    t.tell(Clause(dark, "be", attributes=("dark",), phrase="night", front="phrase"))
    if noun in SOUND_OF and t.chance(0.6):
        manner = t.maybe("loudly", 0.5)
        t.tell(Clause(t.a(noun), SOUND_OF[noun], manner=manner, adverb="suddenly", front="adverb"))
        t.last = None
    else:
        t.does(t.hero, "hear", t.a(noun), adverb="suddenly", front="adverb")
    t.feels(t.hero, "afraid")
    cover = t.pick("blanket bed")
    t.does(t.hero, "hide", None, Adjunct("under", t.of(t.hero, cover, attributes=t.looks(cover, 0.4))))
    if t.chance(0.6):
        t.does(t.hero, t.pick("cry shout"), manner="loudly")
    comforter = t.relative("mother father grandmother sister")
    t.does(comforter, "come", manner="quickly", adverb=t.maybe("then", 0.5))
    match t.pick("story lamp song"):
        case "story":
            t.does(comforter, t.pick("tell read"), t.a("story", 0.6), recipient=t.hero)
        case "lamp":
            subject = t.subject(comforter)
            t.tell(Clause(subject, "bring", t.a("lamp")), "and", Clause(subject, "hug", t.hero))
        case "song":
            t.does(comforter, "sing", t.a("song", 0.6))
    if t.chance(0.5):
        t.says(comforter, Clause(t.the(noun), "be", attributes=("little" if noun == "mouse" else "kind",)))
    t.feels(t.hero, "brave happy tired", t.pick("finally now"))
    t.sleep(t.hero)


def farm(t: Teller) -> None:
    """A day among the animals of the farm."""
    t.introduce_child()
    t.go("farm", t.companion(0.4))
    farmer = t.the("farmer")
    if t.chance(0.6):
        t.does(farmer, "show", t.the(t.pick("barn field")), recipient=t.hero)
    for noun in t.sample(ANIMALS_OF["farm"], t.rng.choice([2, 3, 3])):
        t.animal_acts(t.the(noun))
        match t.pick("none feed touch"):
            case "feed" if noun in FOOD_OF:
                t.does(t.hero, "feed", t.the(noun))
            case "touch":
                t.does(t.hero, "chase" if noun in ("rooster", "goose") else "stroke", t.the(noun, 0.4))
    if t.chance(0.5):
        t.does(t.hero, "ride", None, Adjunct("on", t.the(t.pick("horse donkey"), 0.5)))
    if t.chance(0.5):
        subject = t.subject(t.hero)
        t.tell(Clause(subject, "help", farmer), "and", Clause(subject, t.pick("count fetch"), t.some("egg")))
    t.ending()


def shopping(t: Teller) -> None:
    """Things are bought."""
    t.introduce_child()
    place = t.pick("market shop bakery town")
    baked = "bread cake cookie"
    food = t.pick(baked if place == "bakery" else "apple pear carrot strawberry cheese potato egg cherry honey")
    phrase = t.maybe("one_day morning", 0.6)
    front = "phrase" if phrase and t.chance(0.7) else ""
    subject = t.subject(t.hero)
    goes = Clause(subject, "go", adjuncts=(Adjunct("to", t.the(place)),), phrase=phrase, front=front)
    t.tell(goes, "purpose", Clause(subject, "buy", t.some(food)))
    if t.chance(0.4):
        t.does(t.hero, "carry", t.a("basket", 0.6))
    if t.chance(0.5):
        t.is_like(t.the(place))
    seller = t.the("baker" if place == "bakery" else t.pick("farmer baker neighbor"))
    t.does(seller, "sell", t.some(t.pick(baked) if seller.noun == "baker" else food))
    if t.chance(0.5):
        t.says(t.hero, Clause(I, "have", t.some(food), modal="want"))
    coins = Thing("coin", determiner=t.pick("two three four five"), plural=True)
    t.does(t.hero, "give", coins, recipient=seller)
    bought = Thing(food, plural=not NOUNS[food].mass, gender=gender_of(food))
    t.tell(Clause(bought, "be", attributes=(t.rng.choice(LOOKS_OF[food].split()),)))
    t.last = None
    t.does(t.hero, "eat", t.a(food), adverb=t.maybe("then", 0.5))
    t.ending()


def seaside(t: Teller) -> None:
    """A summer day by the water."""
    t.introduce_child()
    place = t.pick("beach sea island lake")
    if t.chance(0.7):
        t.weather("summer")
    t.go(place, t.companion(0.8))
    t.does(t.hero, "swim", None, Adjunct("in", t.the("water", 0.5)), manner=t.maybe("gladly quickly", 0.4))
    if t.chance(0.7):
        tool = Adjunct("with", t.a(t.pick("shovel bucket")))
        t.does(t.hero, "build", t.a("sandcastle", 0.7), tool)
        if t.chance(0.5):
            t.tell(Clause(t.a("wave", 1.0), "come", adverb="suddenly", front="adverb"))
            t.last = None
            t.feels(t.hero, "surprised sad")
    if t.chance(0.7):
        t.does(t.hero, t.pick("find seek count"), t.some("shell"), Adjunct("at", t.the("beach")))
    if t.chance(0.6):
        t.animal_acts(t.meet_animal(place))
    t.ending()


def race(t: Teller) -> None:
    """Two animals race."""
    place = t.introduce_animal("meadow forest field farm")
    t.feels(t.hero, "proud bored excited")
    rival = t.meet_animal(place)
    t.says(t.hero, Clause(I, "be", attributes=("fast",)))
    if t.chance(0.6):
        t.says(rival, Clause(YOU, "be", attributes=("slow",)), "answer")
    both = replace(t.hero, partner=rival)
    course = Adjunct("over", t.the(t.pick("meadow field bridge")))
    t.does(both, "run", None, course, manner="quickly", adverb="then")
    match t.pick("fall rest none"):
        case "fall":
            obstacle = Adjunct("over", t.a(t.pick("stone stick"), 0.6))
            t.does(t.hero, "fall", None, obstacle, adverb="suddenly", front="adverb")
        case "rest":
            t.does(t.hero, "rest", None, Adjunct("under", t.a("tree")))
    winner, loser = (rival, t.hero) if t.chance(0.6) else (t.hero, rival)
    t.does(winner, "win", adverb=t.maybe("finally", 0.5))
    t.feels(winner, "proud happy")
    t.feels(loser, "sad tired angry")
    if t.chance(0.5):
        t.says(loser, Clause(YOU, "be", attributes=(t.pick("fast strong clever"),)))
    t.ending(both)


def gardening(t: Teller) -> None:
    """Something grows."""
    t.introduce_child()
    if t.chance(0.5):
        t.weather("spring")
    plant = t.pick("flower tree rose")
    phrase = t.pick("spring morning one_day")
    t.does(t.hero, "dig", None, Adjunct("at", t.the("garden")), phrase=phrase, front="phrase")
    t.does(t.hero, "plant", t.a(t.pick(("seed", plant))), manner=t.maybe("carefully", 0.4))
    t.does(t.hero, "water", t.the(plant), phrase="every_day")
    if t.chance(0.6):
        t.weather("spring")
    t.does(t.the(plant), "grow", manner=t.pick("slowly quickly"), adverb=t.maybe("then", 0.3))
    t.is_like(t.the(plant))
    if t.chance(0.6):
        visitor = t.pick("bee butterfly snail bird hedgehog")
        t.appears(t.a(visitor, 0.6), "come", Adjunct("to", t.the("garden")))
        t.animal_acts(t.the(visitor))
    if plant != "tree":
        subject, whom = t.subject(t.hero), t.relative("mother grandmother aunt")
        gives = Clause(subject, "give", t.he(t.the(plant)), recipient=whom)
        t.tell(Clause(subject, "pick", t.the(plant)), "and", gives)
    t.ending()


def sickbed(t: Teller) -> None:
    """Somebody is ill and is cared for."""
    t.introduce_child()
    ill, doctor = t.relative("grandmother grandfather brother sister mother"), t.the("doctor")
    t.feels(ill, "sick")
    phrase = t.pick("one_day morning evening")
    t.does(t.hero, "visit", t.he(ill), phrase=phrase, front="phrase")
    t.does(t.hero, "bring", t.a(t.pick("soup tea cake rose flower honey")), recipient=t.he(ill))
    if t.chance(0.6):
        t.does(doctor, "come", adverb=t.pick("then later soon"), front="adverb")
        t.does(doctor, t.pick("help visit"), ill)
    if t.chance(0.6):
        t.does(t.hero, "read", t.a(t.pick("book story letter"), 0.6))
    subject = t.subject(ill)
    t.tell(Clause(subject, "drink", t.a("tea", 0.6)), "and", Clause(subject, "sleep"))
    t.feels(ill, "healthy", t.pick("soon finally later"))
    t.feels(ill, "thankful happy")
    t.ending()


def mending(t: Teller) -> None:
    """Something breaks and is mended."""
    t.introduce_child()
    broken = t.pick("cup plate lamp boat car chair window train doll flute")
    breaker = t.relative("brother sister") if t.chance(0.4) else t.hero
    t.does(breaker, "break", t.a(broken, 0.7), phrase="one_day", front="phrase")
    t.feels(t.hero, "sad angry worried")
    if t.chance(0.5):
        t.does(t.hero, "cry", manner=t.pick("loudly quietly"))
    mender = t.relative("grandfather father uncle") if t.chance(0.7) else t.the("neighbor")
    if t.chance(0.6):
        t.says(t.hero, Clause(YOU, "fix", t.the(broken), modal="can", mood="question"), "ask")
    subject = t.subject(mender)
    t.tell(Clause(subject, "come"), "and", Clause(subject, "fix", t.the(broken)))
    if t.chance(0.6):
        t.is_like(t.the(broken), t.pick("new beautiful good"), adverb="now")
    t.does(t.hero, t.pick("hug thank"), mender)
    t.ending()


def school(t: Teller) -> None:
    """A day at school."""
    t.introduce_child()
    t.go("school", t.companion(0.3))
    teacher = t.the("teacher")
    match t.pick("tell show learn"):
        case "tell":
            t.does(teacher, t.pick("read tell"), t.a("story", 0.7))
        case "show":
            t.does(teacher, "show", t.a(t.pick("book map picture"), 0.6), recipient=CHILDREN)
        case "learn":
            t.does(CHILDREN, "learn", t.a("song", 0.6), adverb=t.maybe("then", 0.5))
    for _ in range(t.rng.choice([1, 2])):
        lesson = t.pick("write:letter paint:picture read:book count:apple sing:song count:nut paint:house")
        verb, noun = lesson.split(":")
        what = t.some(noun) if verb == "count" else t.a(noun, 0.6)
        t.does(t.hero, verb, what, manner=t.maybe("carefully gladly slowly", 0.4))
    if t.chance(0.5):
        t.says(teacher, Clause(YOU, "be", attributes=("clever",)))
    if t.chance(0.6):
        playground = Adjunct("at", t.the("playground"))
        t.does(CHILDREN, "play", t.a("ball"), playground, adverb="later", front="adverb")
    t.ending()


def treasure(t: Teller) -> None:
    """A map leads to a treasure."""
    t.introduce_child()
    place, inside = t.pick("island cave castle forest hill"), Adjunct("in", t.a(t.pick("book box chest"), 0.6))
    t.does(t.hero, "find", t.a("map", 0.7), inside, phrase="one_day", front="phrase")
    t.does(t.the("map"), "show", t.a(place, 0.7))
    t.last = None
    t.go(place, t.companion(0.6))
    if t.chance(0.6):
        t.is_like(t.the(place))
    if t.chance(0.5):
        t.appears(t.a(t.pick("pirate giant witch king queen"), 0.0), "live", phrase="there", front="phrase")
        t.feels(t.hero, "afraid brave curious")
    tool, spot = Adjunct("with", t.a(t.pick("shovel stick"))), Adjunct("under", t.a(t.pick("tree stone"), 0.7))
    t.does(t.hero, "dig", None, tool, spot)
    t.does(t.hero, "find", t.a("chest", 0.8), adverb=t.maybe("finally", 0.5))
    t.does(t.hero, "open", t.the("chest"), Adjunct("with", t.a("key", 0.7)))
    if t.chance(0.4):
        t.is_like(t.the("chest"), "full")
    else:
        t.does(t.hero, "see", t.some("coin"))
    if t.chance(0.5):
        t.is_like(t.the("treasure"))
    t.feels(t.hero, "happy excited surprised proud")
    t.ending()


def music(t: Teller) -> None:
    """A feast with music."""
    t.introduce_child()
    t.go(t.pick("village castle meadow town market"), t.companion(0.4))
    for player in t.sample("king queen prince witch giant farmer baker teacher neighbor", 2):
        verb, noun = t.pick("sing:song beat:drum ring:bell fetch:flute wear:hat wear:dress").split(":")
        noun = "coat" if noun == "dress" and gender_of(player) == "m" else noun
        t.does(t.the(player), verb, t.a(noun, 0.6))
    t.does(CHILDREN, "dance", manner=t.pick("together gladly"), adverb=t.maybe("then", 0.5))
    if t.chance(0.5):
        t.says(t.hero, Clause(WE, "dance", mood="command"), "shout")
    t.meal()
    t.ending()


def snow(t: Teller) -> None:
    """A day in winter."""
    t.introduce_child()
    t.weather("winter")
    t.does(t.hero, "wear", t.a(t.pick("coat scarf hat"), 0.8), phrase=t.maybe("winter", 0.5))
    t.go(t.pick(SEASON_PLACES["winter"]), t.companion(0.5))
    t.does(t.hero, "build", t.a("snowman", 0.8))
    t.is_like(t.the("snowman"))
    if t.chance(0.6):
        t.does(t.the("snowman"), "wear", t.a(t.pick("hat scarf"), 0.6))
    t.feels(t.hero, "happy tired hungry")
    t.does(t.hero, "go", phrase="home", adverb="later", front="adverb")
    t.does(t.hero, "drink", t.a("tea", 1.0), Adjunct("at", t.the("kitchen")))
    t.sleep(t.hero)


def rain(t: Teller) -> None:
    """Rain falls, and shelter is found."""
    if t.chance(0.4):
        t.introduce_animal()
        t.animal_acts(t.hero)
    else:
        t.introduce_child()
        place = t.pick("park forest meadow garden field")
        t.go(place)
        t.deed(place)
    t.tell(Clause(IT, "rain", adverb="suddenly", front="adverb"))
    t.tell(Clause(Thing("cloud", plural=True), "be", attributes=(t.pick("dark black gray"),)))
    t.last = None
    wind = Clause(t.the("wind"), "be", attributes=("cold",))
    t.tell(Clause(t.subject(t.hero), "be", attributes=("wet",)), "and", wind)
    shelter = t.pick("tree bush bridge") if t.hero.name else t.pick("tree bush leaf")
    t.does(t.hero, "hide", None, Adjunct(t.pick("under behind") if shelter == "bush" else "under", t.a(shelter, 0.6)))
    if t.chance(0.5):
        t.does(t.hero, "wait", t.the("sun"))
    t.tell(Clause(t.the("sun"), "shine", manner="again", adverb="finally", front="adverb"))
    t.last = None
    if t.chance(0.6):
        t.does(t.hero, "see", t.a("rainbow", 0.6))
    t.ending()


ARCS: dict[str, Callable[[Teller], None]] = {
    arc.__name__: arc
    for arc in (
        walk, lost_thing, animal_friends, farm, gift, hungry_child, making, seaside, hungry_animal, gardening,
        shopping, fear, school, rain, sickbed, treasure, mending, race, snow, music,
    )
}  # fmt: skip


def generate_plot(seed: str) -> Plot:
    """The plot of this seed; the same seed gives the same plot."""
    teller = Teller(random.Random(seed))
    arc = skewed(teller.rng, ARCS, skew=6.0)
    ARCS[arc](teller)
    tense = "past" if teller.chance(0.75) else "present"
    return Plot(seed, tense, arc, tuple(teller.sentences))
