"""The world of the stories: what is met where, who does what, what looks how; frequent things first."""

from types import MappingProxyType


def _table(text: str) -> MappingProxyType:
    rows = (line.split(" | ") for line in text.strip().splitlines())
    return MappingProxyType({key: value for key, value in rows})


# place | animals
ANIMALS_OF = _table("""
park | dog bird squirrel duck butterfly cat
forest | fox owl bear squirrel hedgehog rabbit wolf bird
garden | cat bird butterfly hedgehog snail bee rabbit mouse
house | cat dog mouse
kitchen | cat mouse dog
lake | duck fish frog turtle goose
river | fish frog duck turtle bear
sea | fish crab turtle bird
beach | crab turtle dog bird
meadow | horse sheep butterfly bee rabbit cow
field | rabbit mouse horse donkey bird
farm | cow pig rooster horse sheep goat goose donkey dog
barn | cow horse pig goat mouse donkey
pond | frog duck fish goose snail
hill | goat sheep donkey bird
castle | horse owl mouse dog
cave | bear wolf lion
island | turtle crab monkey bird
zoo | lion monkey elephant bear wolf turtle
street | dog cat
village | dog cat goose rooster horse
bridge | fish duck
playground | dog bird
town | dog cat horse
""")

# place | things
OBJECTS_OF = _table("""
park | ball kite flower tree leaf
forest | tree leaf stick nut feather
garden | flower rose tree leaf apple
lake | boat stone feather
river | stone boat bridge
sea | wave boat shell
beach | shell stone bucket
meadow | flower tree stone
field | potato stone flower
farm | egg basket bucket
pond | leaf stone boat
hill | tree stone flower
castle | tower door lamp
cave | stone chest lamp
island | tree shell chest
town | tower car train
street | car lamp door
bridge | boat stone
playground | ball stick tree
village | house door flower
house | door window table bed
kitchen | table cup plate chair
""")

# place | what is done there
DEEDS_OF = _table("""
park | play run walk laugh jump
forest | walk seek climb hide
garden | play water plant dig
lake | swim rest watch
river | swim jump rest
sea | swim laugh
beach | dig run rest
meadow | run dance sing
hill | climb run rest
playground | play climb jump laugh
pond | watch rest
island | swim rest
town | walk
village | dance sing walk
field | run dig walk
""")

# place, thing or animal | what it is like
LOOKS_OF = _table("""
park | big green beautiful
forest | dark deep quiet big
garden | beautiful little green
house | little old warm
kitchen | warm clean bright
lake | deep blue cold
river | wide fast cold
sea | blue wide deep wild
beach | long white warm
meadow | green wide soft
field | wide yellow big
farm | old big
barn | old warm big
village | little quiet old
town | big loud new
pond | little quiet deep
hill | big green
castle | old big golden
bridge | old long
cave | dark deep cold
island | little wild beautiful
zoo | big colorful
playground | new colorful loud
street | long loud
market | colorful loud big
school | new big
shop | little new
bakery | warm little
ball | red round new blue big
book | old thick new colorful
doll | beautiful little old soft
kite | colorful red long
teddy | soft brown old
car | red fast new
train | long fast old
boat | little blue old white
balloon | red round yellow
drum | loud round big
flute | golden old little
bell | golden loud
song | beautiful new old
picture | colorful beautiful
letter | long new
story | long funny old beautiful
tower | big strong old
sandcastle | big beautiful
snowman | white thick big cold
hat | black old big
coat | warm thick black
scarf | warm long soft
shoe | new old dirty black
dress | beautiful new white
ring | golden old
key | golden old little
coin | golden old round
map | old dirty
treasure | golden old big
chest | heavy old big
box | big empty heavy
basket | full big round
bucket | full empty blue
shovel | little red
lamp | bright old
door | old heavy green
window | big clean
bed | soft warm
table | big round
chair | old hard
cup | full white
plate | round clean empty
blanket | warm soft thick
stone | hard heavy gray round
shell | white beautiful little
feather | soft white long
stick | long strong
flower | red yellow beautiful white
rose | red white beautiful
leaf | green yellow brown wet
tree | old big green
bush | green thick
nest | little soft
wave | big wild blue
apple | red sweet round green
cake | sweet big fresh
bread | fresh warm old
cookie | sweet round
pear | sweet green yellow
cherry | red sweet
banana | yellow long
strawberry | sweet red fresh
carrot | long fresh
potato | hot brown round
nut | hard brown
egg | white fresh brown
soup | hot warm
cheese | yellow old
honey | sweet golden
milk | warm white fresh
water | cold fresh
tea | hot warm
juice | sweet cold
bone | hard old big
worm | long thick
hay | fresh yellow
grass | green fresh
seed | little brown
sun | warm bright golden
moon | bright round
rainbow | colorful big
cat | soft black gray little
dog | brown big loud wild
bird | little blue colorful yellow
rabbit | white soft fast brown
mouse | gray little quiet
frog | green wet little
duck | white yellow funny
fish | golden red little fast
horse | brown strong beautiful white
cow | brown big old
pig | dirty thick funny
sheep | white soft old
fox | red clever fast
bear | brown big strong
owl | wise old quiet gray
hedgehog | brown sharp little
squirrel | red fast clever
turtle | slow old green wise
bee | little yellow
butterfly | colorful beautiful yellow
snail | slow little wet
goat | wild white funny
rooster | loud colorful red
lion | yellow strong wild
monkey | funny wild fast
elephant | gray big heavy strong
wolf | gray wild strong
donkey | gray old slow
goose | white loud wild
crab | red little hard
""")

# animal | its sound
SOUND_OF = _table("""
cat | meow
dog | bark
bird | sing
mouse | squeak
duck | quack
horse | neigh
cow | moo
pig | grunt
sheep | bleat
bear | roar
bee | buzz
goat | bleat
rooster | crow
lion | roar
wolf | howl
goose | cackle
""")

# animal | how it moves
MOVE_OF = _table("""
cat | jump
dog | run
bird | fly
rabbit | hop
mouse | run
frog | jump
duck | swim
fish | swim
horse | run
cow | go
pig | run
sheep | go
fox | run
bear | walk
owl | fly
hedgehog | crawl
squirrel | climb
turtle | crawl
bee | fly
butterfly | fly
snail | crawl
goat | jump
rooster | run
lion | go
monkey | climb
elephant | go
wolf | run
donkey | go
goose | swim
crab | crawl
""")

# animal | its food
FOOD_OF = _table("""
cat | milk fish
dog | bone
bird | worm seed
rabbit | carrot grass
mouse | cheese nut
frog | worm
duck | bread worm
fish | worm
horse | hay apple
cow | grass hay
pig | potato apple
sheep | grass hay
fox | egg
bear | honey fish
hedgehog | apple worm
squirrel | nut seed
turtle | grass strawberry
bee | honey
snail | leaf
goat | grass leaf
rooster | seed
monkey | banana nut
elephant | leaf banana
donkey | hay carrot
goose | grass seed
""")

# way of moving | where to: role and noun
_GOALS = """
fly | over house, over tree, into nest, over lake
swim | near boat, under bridge, near stone
crawl | under_to leaf, over stone, under_to bush
hop | over stone, behind_to bush, into grass
jump | into water, over stone, onto table
run | behind_to bush, into garden, over bridge, into barn
walk | into cave, over bridge
go | into barn, over bridge, over meadow
"""
GOALS_OF = MappingProxyType(
    {move: [tuple(goal.split()) for goal in goals.split(", ")] for move, goals in _table(_GOALS).items()}
)

# season | places
SEASON_PLACES = _table("""
summer | lake sea beach meadow river
winter | hill forest garden village
spring | garden meadow field park
autumn | forest park field hill
""")

# season | weather, by the names of the teller's scenes
WEATHER = _table("""
any | shine sun cold warm rain blow cloud
summer | shine hot sun
winter | snow cold white
spring | shine birds warm
autumn | rain blow cold leaves
""")

TOYS = tuple(["ball", "doll", "kite", "teddy", "car", "boat", "train", "drum", "balloon"])
CLOTHES = tuple(["hat", "coat", "scarf", "shoe", "dress", "ring"])
TREATS = tuple(["apple", "cake", "cookie", "pear", "cherry", "banana", "strawberry", "nut"])
DRINKS = tuple(["milk", "water", "juice", "tea"])
OUTDOORS = tuple(
    ["park", "forest", "garden", "meadow", "lake", "river", "pond", "beach", "sea", "hill", "field", "farm"]
)
RELATIVES = MappingProxyType(
    {
        "mother": "f",
        "father": "m",
        "grandmother": "f",
        "sister": "f",
        "grandfather": "m",
        "brother": "m",
        "aunt": "f",
        "uncle": "m",
    }
)
"Relatives with their gender."
