"""What our voices say: sentences of our own, rich in what lips do, and an endless supply of word salads beside them.

Whoever learns to listen needs words that nobody says as well: in them only the sound tells a b from a d.
"""

import random
from dataclasses import dataclass

SENTENCES: tuple[str, ...] = (
    "My mother bought a big purple pumpkin at the market.",
    "Please put the blue paper boat by the open window.",
    "He never thought the weather would be that warm in November.",
    "Which pleasure was the judge measuring, you or me?",
    "Bob and Pam may be happy to move the piano up.",
    "The five fluffy foxes leave very fast for the farm.",
    "We wonder why you would use wool in the warm water.",
    "Oh, the boy enjoys his cows, goats and a few loud owls.",
    "Good morning, and welcome to our evening programme.",
    "She sells sharp scissors and shiny shoes by the sea.",
    "A quiet queen quickly quoted the question on page twelve.",
    "Both brothers breathe through the thick leather scarf.",
    "Zoe chose the yellow jumper because orange was too much.",
    "Five trains arrive from the north before breakfast.",
    "Could you show me how the garage door opens, please?",
    "Many members remember the number of the apartment.",
    "Thank you for waiting; somebody will help you in a moment.",
    "The bubble burst, and nobody knew what to do about it.",
    "Let me explain how this works, step by step.",
    "Maybe we should meet at a quarter past seven instead.",
    "The chef chopped cheap cheese and juicy cherries.",
    "Where were you while we were away last winter?",
    "A small lamp above the map made the room feel warm.",
    "Pay the baker for the bread, the butter and the pie.",
    "Father found a feather floating over the river.",
    "Look, the moon will rise above the rooftops soon.",
    "It is always difficult to say goodbye to old friends.",
    "Everybody in the village heard the church bell ring.",
    "He laughed, put on his cap, and walked out of the room.",
    "I owe you an apology for what I said on Monday.",
)
"""Hand-written."""

_WORDS = """mother father paper puppy baby bumper happy apple purple people member number summer hammer lamb problem
probable album rhythm boat bought beat bait bite bout boy boot book bird bear beer poor pair pear peak pack
pick pop pie pay mat met moot moan mine mouse chew cheese church jump judge giant garage measure vision
pleasure treasure shoe ship shop sugar fish wash machine thin think thought path mouth breathe weather those
them this that feather leather very vivid velvet over oven love leave five four fun full fluffy coffee often
laugh rough enough photo we wow wonder window water wide wool wood would quick queen quiet question quarter
one wall away yes you yellow young year use unit music beautiful human right red road river around sorry carry
story heart hard horse orange north garden early girl world work turn look lake little hello alone allow
follow melt bottle middle whole leaf loud see sun city silver sister possible glass dance voice noise zone
zebra zipper easy tea two talk time tiny test better butter written cat cut caught coat count tall took do dog
day deep dark dinner daddy ladder under idea add made bed cake key cold cook kick back black clock lucky
jacket castle go good give gold green bigger egg eagle again no new nine never know night name moon noon many
money morning moment sing song ring long finger hungry thank bank evening spring house hat hot hill hand hope
behind perhaps eye ice oil toy enjoy our out owl town flower hour apple ask at after answer also always
another arm art air eat each even eleven every end enter edge ink inside island ocean old only own uncle
umbrella bamboo cabbage robber rubber cupboard hamper temper simple sample temple amber timber remember
september november computer camera family animal company complete important improve public republic maybe
somebody anybody shampoo empty prompt attempt symbol palm calm climb bomb tomb thumb plum drum stream dream
steam tomorrow today yesterday together between before beyond above below about across along among potato
tomato banana carrot onion pepper peach grape lemon melon mango running jumping swimming walking talking
reading writing singing playing working sleeping wanted needed started finished opened closed watched helped
asked moved""".split()
_SMALL = (
    "the a of in with and to for from by on my your his her our their is was were are will can could must may".split()
)


def sentences(count: int, seed: int) -> list[str]:
    """`count` sentences, the hand-written ones first; the same seed gives the same."""
    dice = random.Random(seed)
    made = list(SENTENCES[:count])
    while len(made) < count:
        words: list[str] = []
        for _ in range(dice.randint(5, 9)):
            words.append(dice.choice(_WORDS))
            if dice.random() < 0.35:
                words.append(dice.choice(_SMALL))
            if dice.random() < 0.06:
                words[-1] += ","
        made.append(" ".join(words).strip(",").capitalize() + ".")
    return made


_ONSETS = "m b p m b p n d t n d t f v s z l k g w r h y sh ch j th br pl bl sm sn st dr tr".split()
_RHYMES = """ah ee oo oh ay eye ow air are or um un ud ut ub up ab ad at ap am an ib id it ip im in ob od ot op om on
eb ed et ep em en eem een eed oom oon ood oob ame ane ade ape ate ake ile ish atch""".split()


def nonsense(count: int, seed: int) -> list[str]:
    """`count` sentences of invented words: no lexicon helps whoever listens, and m b p stand where n d t could."""
    dice = random.Random(f"nonsense {seed}")

    def word() -> str:
        return "".join(dice.choice(_ONSETS) + dice.choice(_RHYMES) for _ in range(dice.choice((1, 1, 2, 2, 3))))

    return [" ".join(word() for _ in range(dice.randint(5, 8))).capitalize() + "." for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Syllables:
    """What words of a language can be made of, so that its voices can say them; nothing may follow a last vowel
    where `last` is empty."""

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]
    last: tuple[str, ...]


def _syllables(onsets: str, vowels: str, codas: str, last: str = "") -> Syllables:
    """A coda stands after every second vowel."""
    inner = tuple(codas.split())
    return Syllables(tuple(onsets.split()), tuple(vowels.split()), (*inner, *("",) * len(inner)), ("", *last.split()))


SYLLABLES: dict[str, Syllables] = {
    "it": _syllables(
        "m b p m b p mm bb pp n d t n d t f v s z l r c g br pr tr fr sp st sb sci gi ci qu gn gli",
        "a e i o u a e o ia uo",
        "n l r s",
    ),
    "cs": _syllables(
        "m b p m b p n d t n d t f v s z š ž č c k g h j l r ř ch br pl sm vl tř mn zn sp st",
        "a e i o u á é í ou",
        "m n t p s l r k d š",
        "m n t p s l r k b ch",
    ),
    "ca": _syllables(
        "m b p m b p n d t n d t f v s l r c g ll ny x j br pl tr gu",
        "a e i o u a e o",
        "m n l r s",
        "m n l r s t p",
    ),
    "fi": _syllables(
        "m p b m p b mm pp n t d n t d nn tt v f s l r k h j",
        "a e i o u y ä ö aa ee uu uo ie ai ou",
        "n s l r",
        "n s t l",
    ),
}
"""m b p stand as often as n d t."""


def pseudo(count: int, seed: str, language: str) -> list[str]:
    """`count` sentences for a voice of that language: of SYLLABLES, or of English ones, half of them invented."""
    dice = random.Random(f"pseudo {language} {seed}")
    if language == "en":
        salads, words = nonsense(count, dice.getrandbits(32)), sentences(count + len(SENTENCES), dice.getrandbits(32))
        return [salads[at] if at % 2 else words[len(SENTENCES) + at] for at in range(count)]
    parts = SYLLABLES[language]

    def word() -> str:
        whole = ""
        for _ in range(dice.choice((1, 2, 2, 3, 3))):
            whole += dice.choice(parts.codas) if whole else ""
            onset = dice.choice(parts.onsets)
            doubled = len(onset) == 2 and onset[0] == onset[1]
            whole += (onset[1] if doubled and not whole else onset) + dice.choice(parts.vowels)
        return whole + dice.choice(parts.last)

    return [" ".join(word() for _ in range(dice.randint(4, 7))) + "." for _ in range(count)]


FOREIGN: dict[str, tuple[str, ...]] = {
    "de": (
        "Guten Morgen, meine Damen und Herren, willkommen bei unserer Sendung.",
        "Die Mutter bäckt am Sonntag immer einen großen Apfelkuchen.",
        "Vier Freunde fahren früh am Morgen über die Brücke.",
    ),
    "fr": (
        "Bonjour à tous et bienvenue dans notre émission du soir.",
        "Le petit bateau bleu passe sous le vieux pont.",
        "Ma famille aime beaucoup la musique et le bon pain.",
    ),
    "es": (
        "Buenos días a todos y bienvenidos a nuestro programa.",
        "Mi padre compra pan, manzanas y un pequeño pez blanco.",
        "Mañana vamos a probar la nueva máquina en el pueblo.",
    ),
    "it": (
        "Buongiorno a tutti e benvenuti al nostro programma.",
        "La mamma prepara una buona zuppa per la famiglia.",
        "Il bambino beve molta acqua quando fa caldo.",
    ),
    "nl": (
        "Goedemorgen allemaal en welkom bij ons programma.",
        "Mijn moeder bakt op maandag brood met boter en pruimen.",
    ),
    "pl": (
        "Dzień dobry państwu, witamy w naszym programie.",
        "Mama kupiła wczoraj bardzo ładne białe buty.",
    ),
    "pt": (
        "Bom dia a todos e bem-vindos ao nosso programa.",
        "A minha mãe compra pão, maçãs e um peixe branco.",
    ),
}
"""A few sentences a language, for voices whose phones no English voice has."""
