"""The words that several tasks share. In every list those that are drawn most often come first.

Adjectives and nouns that follow "a" begin with a consonant sound, so that no text needs "an".
"""

THINGS = "apples shells stamps marbles books cards pens cakes coins flowers".split()
PEOPLE = "Mia Tom Nora Leo Zoe Omar Kim Hugo Eva Finn Gina Jack".split()

# Subjects of stories. The out-of-distribution test has `CREATURES` in their place, shown in other
# roles.
SUBJECTS = """
    fox bear swan rabbit wolf cat dog mouse duck horse goat frog baker sailor farmer singer
    painter teacher hunter gardener
""".split()

PLACES = """
    forest garden harbour village valley castle market desert meadow cave palace jungle
""".split()
TIMES = "night noon dawn dusk midnight".split()
SEASONS = "summer winter spring autumn".split()

ADJECTIVES = """
    silver tiny golden secret broken magic dusty wooden shiny purple heavy round strange warm
""".split()
OBJECTS = "key lantern map ring book bell crown mirror drum kite cup letter boat coin".split()
CREATURES = "dragon witch giant ghost robot prince pirate fairy monk wizard troll knight".split()

# The words of stories, by the slots that they fill.
WORDS = {
    "adjective": ADJECTIVES,
    "object": OBJECTS,
    "creature": CREATURES,
    "found": "found lost hid carried painted dropped polished borrowed wanted sold".split(),
    "moved": "walked danced ran wandered hopped marched crept travelled skipped climbed".split(),
    "manner": "slowly softly bravely quietly happily quickly proudly lightly boldly calmly".split(),
    "helped": "helped thanked followed greeted teased warned taught cheered".split(),
    "time": TIMES,
    "place": PLACES,
    "subject": SUBJECTS + CREATURES,
}
# The words of descriptions of places.
SCENERY = {
    "mood": "quiet cold windy golden bright old green lonely lovely".split()
    + "foggy dark noisy calm vast".split(),
    "sight": "boats birds lamps trees towers bells stones".split()
    + "flags carts roses children statues".split(),
    "smell": "salt rain smoke bread grass honey moss spices dust snow".split(),
}

CATEGORIES = {
    "tools": "hammer saw drill wrench file chisel pliers shovel rake ladder".split(),
    "fruits": "apple banana pear plum cherry grape mango peach lemon melon".split(),
    "colours": "red blue green yellow black white pink brown grey orange".split(),
    "clothes": "shirt hat coat scarf dress belt sock glove jacket skirt".split(),
    "vegetables": "carrot onion potato bean pea leek turnip radish beet pumpkin".split(),
    "trees": "oak pine birch maple willow elm cedar poplar beech ash".split(),
    "jobs": "nurse pilot cook driver clerk judge dentist tailor miner plumber".split(),
    "instruments": "piano guitar violin flute trumpet harp cello organ banjo tuba".split(),
}

# Questions with one right answer: "question answer, question answer".
_FACTS = {
    "sound": """
        cow moo, dog woof, cat meow, duck quack, sheep baa, pig oink, lion roar, bee buzz, owl hoot,
        frog croak, snake hiss, horse neigh, mouse squeak, wolf howl, hen cluck, donkey bray, crow
        caw
    """,
    "home": """
        bee hive, bear cave, bird nest, spider web, horse stable, dog kennel, pig sty, rabbit
        burrow, cow barn, mouse hole, lion den, hen coop, fish pond, monk abbey
    """,
    "child": """
        cow calf, dog puppy, cat kitten, sheep lamb, duck duckling, horse foal, pig piglet, bear
        cub, hen chick, goat kid, frog tadpole, fox pup, king prince
    """,
    "opposite": """
        hot cold, big small, fast slow, old young, wet dry, hard soft, dark light, full empty, high
        low, loud quiet, rich poor, sweet sour, thick thin, early late
    """,
}
FACTS = {name: dict(pair.split() for pair in text.split(",")) for name, text in _FACTS.items()}
