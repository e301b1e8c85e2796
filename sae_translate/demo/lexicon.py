"""The words of the story world: one row a concept, its English and its German forms side by side."""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Noun:
    """A noun in both languages."""

    concept: str
    english: str
    english_plural: str
    german: str
    gender: str
    "German grammatical gender: m, f or n. Animals borrow it for their English pronoun too (the cat: she)."
    german_plural: str
    weak: bool
    "Takes -n in every case but the nominative singular (der Hase, den Hasen)."
    mass: bool
    "Has no indefinite article (bread, milk)."


@dataclass(frozen=True)
class Place:
    """A place: its noun, with the prepositions for being there and for going there."""

    noun: str
    english_at: str
    english_to: str
    german_at: str
    "Preposition for being there; takes the dative."
    german_to: str
    "Preposition for going there; `zu` and `nach` take the dative, the others the accusative."


@dataclass(frozen=True)
class Verb:
    """A verb in both languages, with what it asks of its object."""

    concept: str
    english: str
    english_past: str
    english_link: str
    "Word between verb and object, or after the verb where it has none (look for, wake up)."
    german: str
    "Infinitive without its separable prefix."
    german_present: str
    german_past: str
    prefix: str
    "Separable prefix, empty where there is none."
    case: str
    "Case of the object: acc or dat."
    german_link: str
    "Preposition of the object, empty where it has none."
    reflexive: bool


@dataclass(frozen=True)
class Word:
    """A word that is the same in every place but for German adjective endings."""

    concept: str
    english: str
    german: str


# key: English [plural] | German gender plural      (m* = weak declension, ~ = mass noun)
_PEOPLE = """
girl | Mädchen n Mädchen
boy | Junge m* Jungen
child children | Kind n Kinder
mother | Mutter f Mütter
father | Vater m Väter
grandmother | Großmutter f Großmütter
grandfather | Großvater m Großväter
sister | Schwester f Schwestern
brother | Bruder m Brüder
friend | Freund m Freunde
friend_f=friend friends | Freundin f Freundinnen
uncle | Onkel m Onkel
aunt | Tante f Tanten
teacher | Lehrerin f Lehrerinnen
farmer | Bauer m* Bauern
baker | Bäcker m Bäcker
doctor | Ärztin f Ärztinnen
neighbor | Nachbar m* Nachbarn
king | König m Könige
queen | Königin f Königinnen
prince | Prinz m* Prinzen
witch witches | Hexe f Hexen
giant | Riese m* Riesen
pirate | Pirat m* Piraten
"""

_ANIMALS = """
cat | Katze f Katzen
dog | Hund m Hunde
bird | Vogel m Vögel
rabbit | Hase m* Hasen
mouse mice | Maus f Mäuse
frog | Frosch m Frösche
duck | Ente f Enten
fish fish | Fisch m Fische
horse | Pferd n Pferde
cow | Kuh f Kühe
pig | Schwein n Schweine
sheep sheep | Schaf n Schafe
fox foxes | Fuchs m Füchse
bear | Bär m* Bären
owl | Eule f Eulen
hedgehog | Igel m Igel
squirrel | Eichhörnchen n Eichhörnchen
turtle | Schildkröte f Schildkröten
bee | Biene f Bienen
butterfly butterflies | Schmetterling m Schmetterlinge
snail | Schnecke f Schnecken
goat | Ziege f Ziegen
rooster | Hahn m Hähne
lion | Löwe m* Löwen
monkey | Affe m* Affen
elephant | Elefant m* Elefanten
wolf wolves | Wolf m Wölfe
donkey | Esel m Esel
goose geese | Gans f Gänse
crab | Krabbe f Krabben
"""

_OBJECTS = """
ball | Ball m Bälle
book | Buch n Bücher
doll | Puppe f Puppen
kite | Drachen m Drachen
teddy teddies | Teddy m Teddys
car | Auto n Autos
train | Zug m Züge
boat | Boot n Boote
balloon | Luftballon m Luftballons
drum | Trommel f Trommeln
flute | Flöte f Flöten
bell | Glocke f Glocken
song | Lied n Lieder
picture | Bild n Bilder
letter | Brief m Briefe
story stories | Geschichte f Geschichten
tower | Turm m Türme
sandcastle | Sandburg f Sandburgen
snowman snowmen | Schneemann m Schneemänner
hat | Hut m Hüte
coat | Mantel m Mäntel
scarf scarves | Schal m Schals
shoe | Schuh m Schuhe
dress dresses | Kleid n Kleider
ring | Ring m Ringe
key | Schlüssel m Schlüssel
coin | Münze f Münzen
map | Karte f Karten
treasure | Schatz m Schätze
chest | Truhe f Truhen
box boxes | Kiste f Kisten
basket | Korb m Körbe
bucket | Eimer m Eimer
shovel | Schaufel f Schaufeln
lamp | Lampe f Lampen
door | Tür f Türen
window | Fenster n Fenster
bed | Bett n Betten
table | Tisch m Tische
chair | Stuhl m Stühle
cup | Tasse f Tassen
plate | Teller m Teller
blanket | Decke f Decken
stone | Stein m Steine
shell | Muschel f Muscheln
feather | Feder f Federn
stick | Stock m Stöcke
flower | Blume f Blumen
rose | Rose f Rosen
seed | Samen m Samen
leaf leaves | Blatt n Blätter
tree | Baum m Bäume
bush bushes | Busch m Büsche
nest | Nest n Nester
wave | Welle f Wellen
sun | Sonne f Sonnen
moon | Mond m Monde
star | Stern m Sterne
cloud | Wolke f Wolken
wind | Wind m Winde
rainbow | Regenbogen m Regenbögen
"""

_FOODS = """
apple | Apfel m Äpfel
cake | Kuchen m Kuchen
bread | Brot n Brote ~
cookie | Keks m Kekse
pear | Birne f Birnen
cherry cherries | Kirsche f Kirschen
banana | Banane f Bananen
strawberry strawberries | Erdbeere f Erdbeeren
carrot | Karotte f Karotten
potato potatoes | Kartoffel f Kartoffeln
nut | Nuss f Nüsse
egg | Ei n Eier
soup | Suppe f Suppen ~
cheese | Käse m Käse ~
honey | Honig m Honige ~
milk | Milch f Milchen ~
water | Wasser n Wasser ~
tea | Tee m Tees ~
juice | Saft m Säfte ~
bone | Knochen m Knochen
worm | Wurm m Würmer
hay | Heu n Heue ~
grass | Gras n Gräser ~
"""

_TIMES = """
day | Tag m Tage
"""

# key [plural] | German gender plural | English at, to | German at, to
_PLACES = """
park | Park m Parks | in to | in in
forest | Wald m Wälder | in into | in in
garden | Garten m Gärten | in into | in in
house | Haus n Häuser | in into | in in
kitchen | Küche f Küchen | in into | in in
school | Schule f Schulen | at to | in in
lake | See m Seen | at to | an zu
river | Fluss m Flüsse | at to | an zu
sea | Meer n Meere | by to | an an
beach beaches | Strand m Strände | on to | an an
meadow | Wiese f Wiesen | in to | auf auf
field | Feld n Felder | in to | auf auf
farm | Bauernhof m Bauernhöfe | on to | auf auf
barn | Stall m Ställe | in into | in in
village | Dorf n Dörfer | in to | in in
town | Stadt f Städte | in to | in in
street | Straße f Straßen | on to | auf auf
market | Markt m Märkte | at to | auf auf
shop | Laden m Läden | in into | in in
bakery bakeries | Bäckerei f Bäckereien | in to | in in
pond | Teich m Teiche | at to | an zu
hill | Hügel m Hügel | on up | auf auf
castle | Schloss n Schlösser | in into | in in
bridge | Brücke f Brücken | on to | auf zu
cave | Höhle f Höhlen | in into | in in
island | Insel f Inseln | on to | auf auf
zoo | Zoo m Zoos | in to | in in
playground | Spielplatz m Spielplätze | on to | auf auf
"""

# key [gender] | English | German
_NAMES = """
anna f | Anna | Anna
tom m | Tom | Tom
lily f | Lily | Lilli
ben m | Ben | Ben
mary f | Mary | Marie
jack m | Jack | Hans
emma f | Emma | Emma
max m | Max | Max
lucy f | Lucy | Luzie
paul m | Paul | Paul
sarah f | Sarah | Sara
peter m | Peter | Peter
heidi f | Heidi | Heidi
john m | John | Jonas
ella f | Ella | Ella
tim m | Tim | Tim
"""

# key [past] [+link] | German present past [flags: dat, sich, +preposition(case)]
_VERBS = """
go went | gehen geht ging
run ran | laufen läuft lief
walk walked | wandern wandert wanderte
come came | kommen kommt kam
jump jumped | springen springt sprang
hop hopped | hüpfen hüpft hüpfte
fly flew | fliegen fliegt flog
swim swam | schwimmen schwimmt schwamm
crawl crawled | kriechen kriecht kroch
climb climbed | klettern klettert kletterte +auf
dance danced | tanzen tanzt tanzte
sing sang | singen singt sang
play played +with | spielen spielt spielte +mit
laugh laughed | lachen lacht lachte
smile smiled | lächeln lächelt lächelte
cry cried | weinen weint weinte
sleep slept | schlafen schläft schlief
wake woke +up | auf|wachen wacht wachte
sit sat | sitzen sitzt saß
stand stood | stehen steht stand
rest rested | aus|ruhen ruht ruhte sich
hide hid | verstecken versteckt versteckte sich
fall fell | fallen fällt fiel
live lived | leben lebt lebte
eat ate | essen isst aß
drink drank | trinken trinkt trank
bake baked | backen backt backte
cook cooked | kochen kocht kochte
find found | finden findet fand
devour=eat ate | fressen frisst fraß
seek looked +for | suchen sucht suchte
lose lost | verlieren verliert verlor
see saw | sehen sieht sah
hear heard | hören hört hörte
watch watched | beobachten beobachtet beobachtete
take took | nehmen nimmt nahm
bring brought | bringen bringt brachte
carry carried | tragen trägt trug
hold held | halten hält hielt
throw threw | werfen wirft warf
catch caught | fangen fängt fing
build built | bauen baut baute
paint painted | malen malt malte
read read | lesen liest las
write wrote | schreiben schreibt schrieb
count counted | zählen zählt zählte
learn learned | lernen lernt lernte
open opened | öffnen öffnet öffnete
close closed | schließen schließt schloss
buy bought | kaufen kauft kaufte
sell sold | verkaufen verkauft verkaufte
pick picked | pflücken pflückt pflückte
plant planted | pflanzen pflanzt pflanzte
water watered | gießen gießt goss
dig dug | graben gräbt grub
wash washed | waschen wäscht wusch
help helped | helfen hilft half dat
thank thanked | danken dankt dankte dat
follow followed | folgen folgt folgte dat
give gave | geben gibt gab
show showed | zeigen zeigt zeigte
tell told | erzählen erzählt erzählte
visit visited | besuchen besucht besuchte
meet met | treffen trifft traf
love loved | lieben liebt liebte
hug hugged | umarmen umarmt umarmte
kiss kissed | küssen küsst küsste
feed fed | füttern füttert fütterte
stroke stroked | streicheln streichelt streichelte
chase chased | jagen jagt jagte
fetch fetched | holen holt holte
wait waited +for | warten wartet wartete +auf
break broke | zerbrechen zerbricht zerbrach
fix fixed | reparieren repariert reparierte
win won | gewinnen gewinnt gewann
push pushed | schieben schiebt schob
pull pulled | ziehen zieht zog
ride rode | reiten reitet ritt
wear wore | tragen trägt trug
ring rang | läuten läutet läutete
beat beat | schlagen schlägt schlug
dream dreamed +of | träumen träumt träumte +von
shine shone | scheinen scheint schien
blow blew | wehen weht wehte
rain rained | regnen regnet regnete
snow snowed | schneien schneit schneite
grow grew | wachsen wächst wuchs
float floated | treiben treibt trieb
bark barked | bellen bellt bellte
meow meowed | miauen miaut miaute
quack quacked | quaken quakt quakte
neigh neighed | wiehern wiehert wieherte
moo mooed | muhen muht muhte
grunt grunted | grunzen grunzt grunzte
bleat bleated | blöken blökt blökte
crow crowed | krähen kräht krähte
buzz buzzed | summen summt summte
squeak squeaked | piepsen piepst piepste
roar roared | brüllen brüllt brüllte
howl howled | heulen heult heulte
cackle cackled | schnattern schnattert schnatterte
say said | sagen sagt sagte
ask asked | fragen fragt fragte
shout shouted | rufen ruft rief
whisper whispered | flüstern flüstert flüsterte
answer answered | antworten antwortet antwortete
"""

_ATTRIBUTES = """
little | klein
big | groß
red | rot
blue | blau
green | grün
yellow | gelb
white | weiß
black | schwarz
brown | braun
gray | grau
golden | golden
old | alt
new | neu
young | jung
beautiful | schön
soft | weich
hard | hart
round | rund
long | lang
warm | warm
cold | kalt
hot | heiß
sweet | süß
fresh | frisch
heavy | schwer
empty | leer
full | voll
dark | dunkel
bright | hell
deep | tief
wide | breit
fast | schnell
slow | langsam
loud | laut
quiet | still
clever | klug
kind | lieb
funny | lustig
wild | wild
thick | dick
strong | stark
clean | sauber
dirty | schmutzig
wet | nass
sharp | spitz
wise | weise
good | gut
colorful | bunt
"""

_FEELINGS = """
happy | glücklich
sad | traurig
tired | müde
hungry | hungrig
afraid | ängstlich
angry | wütend
thirsty | durstig
proud | stolz
surprised | überrascht
excited | aufgeregt
curious | neugierig
lonely | einsam
sick | krank
worried | besorgt
brave | mutig
thankful | dankbar
bored | gelangweilt
healthy | gesund
"""

_ADVERBS = """
manner:quickly | quickly | schnell
manner:slowly | slowly | langsam
manner:quietly | quietly | leise
manner:loudly | loudly | laut
manner:together | together | zusammen
manner:carefully | carefully | vorsichtig
manner:gladly | gladly | gern
manner:again | again | wieder
manner:alone | alone | allein
time:once | once | einmal
time:then | then | dann
time:suddenly | suddenly | plötzlich
time:soon | soon | bald
time:later | later | später
time:now | now | jetzt
time:finally | finally | endlich
time:today | today | heute
time:often | often | oft
time:always | always | immer
"""

# Phrases of time: every word with its own concept.
_PHRASES = """
one_day | one/function:one day/time:day | eines/function:one Tages/time:day
morning | in/function:in the/function:the morning/time:morning | am/function:in Morgen/time:morning
noon | at/function:at noon/time:noon | am/function:at Mittag/time:noon
evening | in/function:in the/function:the evening/time:evening | am/function:in Abend/time:evening
night | at/function:at night/time:night | in/function:at der/function:the Nacht/time:night
summer | in/function:in summer/time:summer | im/function:in Sommer/time:summer
winter | in/function:in winter/time:winter | im/function:in Winter/time:winter
spring | in/function:in spring/time:spring | im/function:in Frühling/time:spring
autumn | in/function:in autumn/time:autumn | im/function:in Herbst/time:autumn
every_day | every/function:every day/time:day | jeden/function:every Tag/time:day
home | home/place:home | nach/function:to Hause/place:home
at_home | at/function:at home/place:home | zu/function:at Hause/place:home
there | there/function:there | dort/function:there
"""


def _rows(table: str) -> list[list[str]]:
    return [[part.strip() for part in line.split(" | ")] for line in table.strip().splitlines()]


def _nouns(table: str, kind: str) -> dict[str, Noun]:
    nouns = {}
    for english, german, *_ in _rows(table):
        key, *plural = english.split()
        key, _, shared = key.partition("=")
        word = shared or key
        name, gender, german_plural, *mass = german.split()
        nouns[key] = Noun(
            f"{kind}:{word}", word, plural[0] if plural else word + "s",
            name, gender[0], german_plural, gender.endswith("*"), bool(mass),
        )  # fmt: skip
    return nouns


def _places() -> dict[str, Place]:
    return {
        english.split()[0]: Place(english.split()[0], *at_english.split(), *at_german.split())
        for english, _, at_english, at_german in _rows(_PLACES)
    }


def _verbs() -> dict[str, Verb]:
    verbs = {}
    for english, german in _rows(_VERBS):
        key, past, *link = english.split()
        key, _, shared = key.partition("=")
        word = shared or key
        infinitive, present, preterite, *flags = german.split()
        prefix, _, stem = infinitive.rpartition("|")
        preposition = next((flag[1:] for flag in flags if flag.startswith("+")), "")
        case = "dat" if "dat" in flags or preposition in ("mit", "von") else "acc"
        base = "look" if key == "seek" else word
        verbs[key] = Verb(
            f"action:{word}", base, past, link[0][1:] if link else "",
            stem, present, preterite, prefix, case, preposition, "sich" in flags,
        )  # fmt: skip
    return verbs


def _phrase(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((word, concept) for word, _, concept in (part.partition("/") for part in text.split()))


NOUNS = MappingProxyType(
    _nouns(_PEOPLE, "entity")
    | _nouns(_ANIMALS, "entity")
    | _nouns(_OBJECTS, "entity")
    | _nouns(_FOODS, "entity")
    | _nouns(_PLACES, "place")
    | _nouns(_TIMES, "time")
)
ANIMALS = frozenset(_nouns(_ANIMALS, "entity"))
ANIMATE = frozenset(_nouns(_PEOPLE, "entity")) | ANIMALS
PLACES = MappingProxyType(_places())
VERBS = MappingProxyType(_verbs())
NAMES = MappingProxyType({row[0].split()[0]: Word(f"name:{row[1].lower()}", row[1], row[2]) for row in _rows(_NAMES)})
NAME_GENDER = MappingProxyType(dict(row[0].split() for row in _rows(_NAMES)))
ATTRIBUTES = MappingProxyType({row[0]: Word(f"attribute:{row[0]}", row[0], row[1]) for row in _rows(_ATTRIBUTES)})
FEELINGS = MappingProxyType({row[0]: Word(f"feeling:{row[0]}", row[0], row[1]) for row in _rows(_FEELINGS)})
ADVERBS = MappingProxyType({row[1]: Word(*row) for row in _rows(_ADVERBS)})
PHRASES = MappingProxyType({row[0]: (_phrase(row[1]), _phrase(row[2])) for row in _rows(_PHRASES)})

# role: English, German, German case. Being somewhere takes the dative, going there the accusative.
PREPOSITIONS = MappingProxyType({
    "with": ("with", "mit", "dat"),
    "for": ("for", "für", "acc"),
    "from": ("from", "von", "dat"),
    "in": ("in", "in", "dat"),
    "into": ("into", "in", "acc"),
    "on": ("on", "auf", "dat"),
    "onto": ("onto", "auf", "acc"),
    "under": ("under", "unter", "dat"),
    "under_to": ("under", "unter", "acc"),
    "behind": ("behind", "hinter", "dat"),
    "behind_to": ("behind", "hinter", "acc"),
    "near": ("near", "bei", "dat"),
    "over": ("over", "über", "acc"),
})  # fmt: skip
NUMBERS = MappingProxyType(
    {"two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs", "seven": "sieben"}
)
