"""Instructions for manipulation robots, from which the shipped tokenizer is trained.

`make_corpus` fills sentence templates with the things, places, colors and manners that
appear in tabletop, kitchen and household demonstrations, and adds the tasks of
Meta-World, the sentence patterns of LIBERO and BridgeData, and common words of every
kind. The corpus only decides which words become single tokens; every other word is
still spelled out.
"""

from collections.abc import Iterator

import numpy as np

_OBJECTS = """
alphabet soup|apple|avocado|bag of chips|ball|banana|basket|basketball|bagel|bell
pepper|black bowl|block|book|bottle|bottle cap|bowl|box|bread|broccoli|brush|bucket
|butter|button|cable|caddy|cake|can|candle|carrot|cheese|chili|chocolate pudding|cloth
|coffee cup|coffee mug|corn|cookie box|cream cheese|cube|cucumber|cup|cupcake|cutting
board|cylinder|dish|dishcloth|duck|egg|eggplant|fork|frying pan|garlic|glass|glue|grape
|hammer|jar|ketchup|keyboard|kettle|key|knife|ladle|lemon|lid|lime|marker|milk|moka pot
|mouse|mug|mushroom|napkin|nut|onion|orange|orange juice|pan|paper|peach|pear|peg|pen
|pencil|pepper|pill|pineapple|plate|plum|pot|potato|puck|ramekin|remote|ring|rope|round
nut|salad dressing|salt|sauce|scissors|screwdriver|shirt|shoe|soap|soccer ball|soda can
|spatula|sponge|spoon|square nut|stapler|stick|strawberry|stuffed animal|sushi|sweet
potato|tape|tea cup|teapot|thermos|tissue|toast|tomato|tomato sauce|tool|towel|toy|toy
car|triangle|turnip|water bottle|watermelon|whisk|wine bottle|wooden block|wrench
|yogurt|yellow book|popcorn|tray|peg|glove|vase|flower|battery|phone|laptop|cap|screw
|bolt|gear|plug|charger|sock|jacket|pillow|blanket|newspaper|envelope|card|dice|coin
""".replace("\n", " ")
_PLACES = """
basket|bin|bowl|box|bottom drawer|bottom shelf|burner|cabinet|cabinet shelf|caddy|chair
|clear bowl|container|counter|countertop|cupboard|cutting board|dish rack|dishwasher
|drawer|drying rack|floor|fridge|front compartment|goal|hole|hoop|left compartment|left
plate|microwave|middle drawer|middle of the table|mug|net|orange bowl|oven|pan|paper
towel|peg|plate|pot|rack|right compartment|right plate|second shelf|shelf|sink|sofa
|stand|stove|table|tabletop|target|top drawer|top shelf|toaster|towel|tray|trash can
|wine rack|wooden tray|workspace|back compartment|coffee machine|box lid|goal position
|target position|edge of the table|corner of the table|green marker|red marker|pallet
|conveyor|outlet|socket|slot|desk|bed|bag|bucket|closet|window sill|laundry basket
""".replace("\n", " ")
_PARTS = """
blinds|bottom drawer|bottom drawer of the cabinet|box|cabinet|cabinet door|cap|cupboard
|door|drawer|dishwasher|flap|fridge|fridge door|gate|jar|laptop|lid|lock|microwave
|microwave door|middle drawer|middle drawer of the cabinet|oven|oven door|top drawer
|top drawer of the cabinet|window|valve|tap|curtain|bag|book|suitcase|trash can
""".replace("\n", " ")
_DEVICES = """
button|coffee button|coffee machine|coffee maker|dial|door handle|door lock|faucet
|faucet handle|handle|knob|lamp|lever|light|light switch|machine|power button|radio|red
button|stove|switch|tap|tap handle|toaster|toggle|valve|wheel|water|fan|oven|blender
|latch|doorknob|crank|plunger|slider|joystick|bell|keypad
""".replace("\n", " ")
_COLORS = """
red|green|blue|yellow|orange|purple|pink|brown|black|white|gray|grey|silver|golden|cyan
|magenta|beige|turquoise|wooden|metal|plastic|glass|striped|small|large|big|tiny|round
|square|tall|short|long|left|right|front|back|middle|top|bottom|upper|lower|empty|full
|open|closed|nearest|farthest|first|second|third|other|light blue|dark green|dark blue
|heavy|soft|transparent|rectangular|leftmost|rightmost|center|new|old|clean|dirty
""".replace("\n", " ")
_RELATIONS = """
on|onto|in|into|inside|on top of|next to|beside|near|behind|in front of|under|below
|above|over|against|between|to the left of|to the right of|at the front of|at the back
of|at the edge of|away from|close to|across from|around|through|off|out of|at the center
of|left of|right of|toward|towards|along|at the end of|beneath|by|upon|outside
""".replace("\n", " ")
_MANNERS = """
slowly|quickly|gently|carefully|firmly|softly|with the gripper|with the robot arm|with
your left hand|with both hands|using the gripper|from above|from the side|from behind
|to the left|to the right|up|down|forward|backward|upward|downward|upright|sideways
|clockwise|counterclockwise|all the way|halfway|a little|by its handle|by the handle
|without touching the wall|without dropping it|once|twice|again|and then stop|first
|smoothly|precisely|diagonally|inwards|outwards|by ten centimeters|ninety degrees
""".replace("\n", " ")
_MOVE = """
put|place|move|set|drop|lay|push|slide|stack|insert|bring|take|carry|transfer|lift|pull
|drag|throw|sweep|guide|shift|position|stick|hang|pour|pack|deliver|leave
""".replace("\n", " ")
_GRASP = """
pick up|grasp|grab|take|lift|hold|lift up|pick|reach for|touch|push|pull|move|rotate
|turn|flip|wipe|clean|fold|unfold|squeeze|knock over|shake|tap|poke|hit|roll|slide
|sweep|remove|unplug|cut|hand over|let go of|release|approach|align|scoop|stir|tilt
|tip over|find|get|look at|point at|follow|fetch|sort|arrange|cover|uncover|straighten
""".replace("\n", " ")
_OPERATE = """
press|push|push down|pull|pull up|pull down|turn|turn on|turn off|rotate|switch on
|switch off|twist|flip|lock|unlock|open|close|release|click|hold down|slide|activate
|spin|toggle|unscrew|screw in|start|stop|raise|lower|reset
""".replace("\n", " ")
_TEMPLATES = (
    "{grasp} the {object}",
    "{grasp} the {color} {object}",
    "{grasp} the {color} {object} {manner}",
    "{grasp} the {object} {relation} the {place}",
    "{move} the {object} {relation} the {place}",
    "{move} the {color} {object} {relation} the {place}",
    "{move} the {color} {object} {relation} the {color} {place} {manner}",
    "{move} the {object} {relation} the {object}",
    "{move} both the {object} and the {object} {relation} the {place}",
    "pick up the {object} and {move} it {relation} the {place}",
    "pick up the {color} {object} and {move} it {relation} the {color} {place}",
    "pick up the {object} {relation} the {place} and place it on the {place}",
    "pick up the {object} between the {object} and the {object} and lift it",
    "take the {object} out of the {place}",
    "take the {color} {object} off the {place} and {grasp} it",
    "open the {part}",
    "close the {part}",
    "open the {part} {manner}",
    "close the {color} {part} {manner}",
    "open the {part} and {move} the {object} inside",
    "{move} the {object} in the {part} and close it",
    "shut the {part}",
    "{operate} the {device}",
    "{operate} the {color} {device}",
    "{operate} the {device} {manner}",
    "{operate} the {device} and {move} the {object} on it",
    "reach the {place}",
    "reach the {color} {place} {manner}",
    "reach to the {color} {object} with the arm",
    "move the gripper {relation} the {place}",
    "move the hand {manner}",
    "avoid the wall and reach the {place}",
    "{move} the {object} over the wall and into the {place}",
    "{grasp} the {object}, then {operate} the {device}",
    "first {operate} the {device}, then {move} the {object} {relation} the {place}",
    "could you please {grasp} the {object}?",
    "please {move} the {color} {object} {relation} the {place}.",
    "i want you to {operate} the {device} {manner}",
    "the robot should {grasp} the {object} and stop",
    "what is {relation} the {place}? {grasp} it.",
    "{move} all {object}s {relation} the {place}",
    "{grasp} {number} {object}s from the {place}",
    "there are {number} {object}s {relation} the {place}",
    "do not {grasp} the {object}",
    "go to the {place} while holding the {object}",
    "use the {object} to {grasp} the {object}",
    "now {grasp} the other {object} as well",
)
_NUMBERS = "one|two|three|four|five|six|seven|eight|nine|ten|0|1|2|3|4|5|6|7|8|9"
_OTHER_WORDS = """
able about above across act action add adjust adult after again agent ahead aid aim air
airplane aisle album align almond along alongside aluminum angle animal another any
apart appliance apron area armchair around art as aside ask assemble at attach aubergine
auto avoid baby back bacon bake balance balloon bamboo bar barbecue barrel barrier base
basin bat bath bathroom be beaker beam bean bear bedroom bee beef beer before begin
bench bend berry between beverage bike bin binder bird biscuit bite blade blend block
board boat body boil bone boot border both bound bracket brake branch brand break
breakfast brick bridge bring broom brushes bubble build bulb bull bump bun bunch bus but
cabbage cage calculator camera camp candy canister car cardboard care carpet carton cat
catch cause ceiling cell center ceramic cereal chain chalk change chicken child chip
chips chop chopstick chopsticks cinnamon circle city clamp class clay cleaner cleaning
clip clock close closer clothes cluster coat coconut coffee cold colander collect color
column comb combine come compact complete cone connect contact contain content continue
control cook cooker cookie copper cord cork cotton couch could couple cover cow crab
cracker cream crate cross crush crystal cube cubes current curve cushion cut cutlery
cycle daisy damp dark deck deep desktop dessert detergent device diamond different dig
digit dinner dip direct direction dispenser display distance divide do doing doll
dolphin done doors dot double dough drain draw dress drill drink drip drive driver drum
dry dryer dust each ear earth eat edge edges eight either elephant else empty end engine
enough enter equal erase eraser even every exactly except exit extend eye face fall fan
far fast fasten feather feed felt few figure file fill film finger finish fire fish fit
fix flag flat flexible flip flour fly foam foil folder food foot force forest forth
forward fox frame free freezer french fresh fries frog from fruit full funnel furniture
game garbage garden garment gas get giraffe give glasses go goal goat gold golf good
grab grain grapes grass grater gravity green grill grip grocery ground group guitar hair
half hall ham hand handles handling hanger hard has hat have head headphones heart heat
heavy helmet help hen herb here high him hinge his hit hole home honey hook horizontal
horse hot hour house how human ice if iron is island item items its jam jelly jeans join
joint jug juice jump just keep kid kitchen kite kiwi label lace lamb large last later
layer lead leaf lean leather leave lego leg lens less let letter lettuce level lie
lighter like line lion liquid list little load location log look loop loose lot low
lower lunch magazine magnet main make mango map mark mask mat match material mayonnaise
measure meat medicine medium melon melt metal meter middle mill mini mint mirror mix
mixer model moist more most motor mount mouth move much muffin multiple music mustard
nail name narrow near neat neck need needle nest never next nine no noodle north nose
not note notebook nothing notice number nuts oat object objects octopus off office oil
olive once only onto opener opposite or order origin ornament other our out outer oval
over own pack package pad page paint pair palm panda panel pants parallel park part
parts pass pasta paste patch path peanut pebble peel people perform person phone photo
picture pie piece pieces pig pile pin pinch pink pipe pitcher pivot pizza plain plane
plant plastic plates play plug plus pocket point pointing pole polish pool pork possible
post powder present press pressure printer prism prop protein pudding puppet purse
puzzle quarter quick rabbit radish rail rain raisin rake range ready rear recipe
rectangle recycle recycling refrigerator region relax remain repeat replace rest retract
return rice right rim rinse road rock rod roll roller roof room root rotate rough row
rub rubber ruler run sack safe salad salmon same sand sandwich saucer saucepan sausage
save saw scale scoop scrape scrub sea seal seat section see seed select send separate
serve server serving set seven several shallow shape shark sharp sharpener sheep sheet
shell ship shoes shoot shop shorts should shoulder shovel shower shrimp shut side sides
sieve sign silicone silver simple single sit six size skate sketch skewer skillet skin
sleeve slice slippers slow smooth snack snake so snow soccer soda sort soup south soy
space spaghetti speaker sphere spice spider spin spinach spill splash split spoons spot
spray spread spring sprinkle stack stain stair stamp stapler star start steak steam
steel steer stem step stir stone stool stop storage store strap straw stretch string
strip stripe strong suction sugar sun support surface sweater swing swivel syringe syrup
system tablet tail tank target tea team tear teddy ten tennis tent test textbook than
that their them then there these they thick thin thing things this those thread three
through throw thumb tie tiger tight time timer tin tip tire to together toilet tongs too
tooth toothbrush toothpaste top torch tower track train trap trash tree trim truck tube
tuna tunnel turtle twist two type umbrella under until up upon us usb vacuum vegetable
vegetables vertical very video vinegar visible waffle wait walk wallet walnut want warm
wash washer washing waste watch water wave wax way wear weigh weight went west wet where
which while whole wide will wine wing wipe wire with within without wok wood wool word
work world would wrap wrist write yarn year yes yogurt you your zero zip zipper zone
zucchini centimeter centimeters degree degrees meters inches assembling bringing
carrying closing dragging dropping folding grabbing grasping holding inserting lifting
moving opening picking placing pouring pressing pulling pushing putting reaching
releasing removing rotating sliding stacking sweeping taking turning wiping closed
dropped folded held inserted lifted moved opened picked placed pressed pulled pushed
rotated stacked turned
"""
META_WORLD = (
    "pick up the ring and assemble it onto the peg",
    "dunk the basketball into the basket",
    "grasp the puck from one bin and place it into the other bin",
    "grasp the cover and close the box with it",
    "press the button from the top down",
    "bypass the wall and press the button from the top",
    "press the button on the wall",
    "bypass the wall and press the button",
    "push the button on the coffee machine",
    "pull the mug away from the coffee machine",
    "push the mug under the coffee machine",
    "rotate the dial by half a turn",
    "pick the nut out of the peg and disassemble it",
    "close the door with its revolving handle",
    "lock the door by rotating the lock clockwise",
    "open the door with its revolving joint",
    "unlock the door by rotating the lock counterclockwise",
    "push and close the drawer",
    "open the drawer by its handle",
    "rotate the faucet clockwise",
    "rotate the faucet counterclockwise",
    "hammer the screw into the wall",
    "insert the gripper into the hole",
    "press the handle down sideways",
    "press the handle down",
    "pull the handle up sideways",
    "pull the handle up",
    "pull the lever up by ninety degrees",
    "insert the peg sideways into the hole",
    "unplug the peg sideways",
    "pick the puck up out of the hole",
    "pick and place the puck at the goal",
    "pick the puck, bypass the wall and place the puck at the goal",
    "slide the plate back into the cabinet sideways",
    "slide the plate back into the cabinet",
    "slide the plate sideways into the net",
    "slide the plate into the hockey net",
    "push the mug backward to the goal",
    "push the puck to the goal",
    "bypass the wall and push the puck to the goal",
    "reach the goal position",
    "bypass the wall and reach the goal position",
    "pick and place the puck onto the shelf",
    "kick the soccer ball into the goal",
    "grasp the stick and pull the thermos with the stick",
    "grasp the stick and push the thermos with the stick",
    "sweep the puck into the hole",
    "sweep the puck off the table",
    "push and close the window",
    "push and open the window",
)


def make_corpus(num_sentences: int, seed: int = 0) -> Iterator[str]:
    """Yields filled templates, and among them Meta-World's tasks and single words.

    Args:
      num_sentences: how many; the same prefix for the same seed.
      seed: seed of the templates and words.
    """
    words = {
        "object": _split(_OBJECTS),
        "place": _split(_PLACES),
        "part": _split(_PARTS),
        "device": _split(_DEVICES),
        "color": _split(_COLORS),
        "relation": _split(_RELATIONS),
        "manner": _split(_MANNERS),
        "move": _split(_MOVE),
        "grasp": _split(_GRASP),
        "operate": _split(_OPERATE),
        "number": _split(_NUMBERS),
    }
    other_words = _OTHER_WORDS.split()
    rng = np.random.default_rng(seed)
    for number in range(num_sentences):
        if number % 8 == 0:
            yield META_WORLD[number // 8 % len(META_WORLD)]
        elif number % 8 == 4:
            yield other_words[number // 8 % len(other_words)]
        else:
            yield _fill(_TEMPLATES[rng.integers(len(_TEMPLATES))], words, rng)


def _fill(template: str, words: dict[str, list[str]], rng) -> str:
    """Replaces every `{kind}` by a word of that kind, drawn anew each time."""
    head, *rest = template.split("{")
    sentence = head
    for part in rest:
        kind, text = part.split("}")
        sentence += words[kind][rng.integers(len(words[kind]))] + text
    return sentence


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split("|")]
