"""The words that several tasks share. In every list the favourites come first: demonstrators draw them most often.

Adjectives and nouns that follow "a" begin with a consonant sound, so that no text needs "an".
"""

PEOPLE = ["Mia", "Tom", "Nora", "Leo", "Zoe", "Omar", "Kim", "Hugo", "Eva", "Finn", "Gina", "Jack"]

# Subjects of stories. The out-of-distribution test has `CREATURES` in their place, shown in other roles.
SUBJECTS = ["fox", "bear", "swan", "rabbit", "wolf", "cat", "dog", "mouse", "duck", "horse", "goat", "frog"]
SUBJECTS += ["baker", "sailor", "farmer", "singer", "painter", "teacher", "hunter", "gardener"]

PLACES = [
    "forest",
    "garden",
    "harbour",
    "village",
    "valley",
    "castle",
    "market",
    "desert",
    "meadow",
    "cave",
    "palace",
    "jungle",
]
TIMES = ["night", "noon", "dawn", "dusk", "midnight"]
SEASONS = ["summer", "winter", "spring", "autumn"]

ADJECTIVES = ["silver", "tiny", "golden", "secret", "broken", "magic", "dusty", "wooden", "shiny", "purple", "heavy", "round"]
ADJECTIVES += ["strange", "warm"]
OBJECTS = ["key", "lantern", "map", "ring", "book", "bell", "crown", "mirror", "drum", "kite", "cup", "letter", "boat", "coin"]
CREATURES = ["dragon", "witch", "giant", "ghost", "robot", "prince", "pirate", "fairy", "monk", "wizard", "troll", "knight"]

FOUND = ["found", "lost", "hid", "carried", "painted", "dropped", "polished", "borrowed", "wanted", "sold"]
MOVED = ["walked", "danced", "ran", "wandered", "hopped", "marched", "crept", "travelled", "skipped", "climbed"]
MANNER = ["slowly", "softly", "bravely", "quietly", "happily", "quickly", "proudly", "lightly", "boldly", "calmly"]
HELPED = ["helped", "thanked", "followed", "greeted", "teased", "warned", "taught", "cheered"]

CATEGORIES = {
    "tools": ["hammer", "saw", "drill", "wrench", "file", "chisel", "pliers", "shovel", "rake", "ladder"],
    "fruits": ["apple", "banana", "pear", "plum", "cherry", "grape", "mango", "peach", "lemon", "melon"],
    "colours": ["red", "blue", "green", "yellow", "black", "white", "pink", "brown", "grey", "orange"],
    "clothes": ["shirt", "hat", "coat", "scarf", "dress", "belt", "sock", "glove", "jacket", "skirt"],
    "vegetables": ["carrot", "onion", "potato", "bean", "pea", "leek", "turnip", "radish", "beet", "pumpkin"],
    "trees": ["oak", "pine", "birch", "maple", "willow", "elm", "cedar", "poplar", "beech", "ash"],
    "jobs": ["nurse", "pilot", "cook", "driver", "clerk", "judge", "dentist", "tailor", "miner", "plumber"],
    "instruments": ["piano", "guitar", "violin", "flute", "trumpet", "harp", "cello", "organ", "banjo", "tuba"],
}

# Questions with one right answer.
SOUNDS = {
    "cow": "moo",
    "dog": "woof",
    "cat": "meow",
    "duck": "quack",
    "sheep": "baa",
    "pig": "oink",
    "lion": "roar",
    "bee": "buzz",
}
SOUNDS |= {"owl": "hoot", "frog": "croak", "snake": "hiss", "horse": "neigh", "mouse": "squeak", "wolf": "howl", "hen": "cluck"}
SOUNDS |= {"donkey": "bray", "crow": "caw"}
HOMES = {"bee": "hive", "bear": "cave", "bird": "nest", "spider": "web", "horse": "stable", "dog": "kennel", "pig": "sty"}
HOMES |= {"rabbit": "burrow", "cow": "barn", "mouse": "hole", "lion": "den", "hen": "coop", "fish": "pond", "monk": "abbey"}
CHILDREN = {
    "cow": "calf",
    "dog": "puppy",
    "cat": "kitten",
    "sheep": "lamb",
    "duck": "duckling",
    "horse": "foal",
    "pig": "piglet",
}
CHILDREN |= {"bear": "cub", "hen": "chick", "goat": "kid", "frog": "tadpole", "fox": "pup", "king": "prince"}
OPPOSITES = {"hot": "cold", "big": "small", "fast": "slow", "old": "young", "wet": "dry", "hard": "soft", "dark": "light"}
OPPOSITES |= {
    "full": "empty",
    "high": "low",
    "loud": "quiet",
    "rich": "poor",
    "sweet": "sour",
    "thick": "thin",
    "early": "late",
}

# Descriptions of places.
MOODS = [
    "quiet",
    "cold",
    "windy",
    "golden",
    "bright",
    "old",
    "green",
    "lonely",
    "lovely",
    "foggy",
    "dark",
    "noisy",
    "calm",
    "vast",
]
SIGHTS = ["boats", "birds", "lamps", "trees", "towers", "bells", "stones", "flags", "carts", "roses", "children", "statues"]
SMELLS = ["salt", "rain", "smoke", "bread", "grass", "honey", "moss", "spices", "dust", "snow"]
