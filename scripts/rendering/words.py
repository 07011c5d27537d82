"""The text of rendered pictures: made-up words, sentences, numbers and code in several scripts."""

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Script:
    """A way of writing: what a font must have for it, and what words are made of."""

    name: str
    probe: str  # letters that a font must be able to tell apart
    onsets: str  # beginnings of a syllable, or all letters where syllables do not matter
    vowels: str = ""
    endings: str = ""
    syllables: tuple[int, int] = (1, 4)  # of a word, at least and at most
    spaced: bool = True  # whether spaces part words
    shaped: bool = False  # whether letters join or move, which takes a layout engine
    leftward: bool = False  # whether lines begin at the right
    cased: bool = False


def _rows(codec: str, first: int, last: int) -> str:
    """The characters of rows of a double-byte standard: those in everyday use come first."""
    cells = itertools.product(range(first, last + 1), range(0xA1, 0xFF))
    return "".join(bytes(cell).decode(codec, errors="ignore") for cell in cells)


_HAN = _rows("gb2312", 0xB0, 0xD6)
_HANGUL = _rows("euc_kr", 0xB0, 0xC8)
_KANA = "あいうえおかがきくけこさしすせそただちってでとなにのはひまみもやよらりるれろわをん"
_KATAKANA = "アイウエオカキクケコサシスセソタチツテトナニノハヒフマムメモラリルレロン"

# Letters stand as often as they are likely.
SCRIPTS = (
    Script(
        "latin",
        "AaZzgMil09éü",
        "tttttnnnnsssshhrrrrddllllccmmmffppggwbbvkyjqxzz",
        "eeeeeeeaaaaaooooiiiiiuuy",
        "nnnnrrrrsssttttdddllmmgckpf",
        cased=True,
    ),
    Script(
        "cyrillic",
        "ЖжДдяЯФщ",
        "ттнннссрррввллккммддппзгбчхжшцф",
        "ооооааааееееииииуыяюэё",
        "нтлсрмйкв",
        (1, 4),
        cased=True,
    ),
    Script(
        "greek",
        "ΩωΔδξΨλ",
        "ττττνννσσσρρρκκπππλλμμγδθχφβζξψ",
        "αααααοοοεεειιιηηυωάέίόύή",
        "ςςςςννν",
        (1, 4),
        cased=True,
    ),
    Script("han", "的国永龙书", _HAN + 20 * _HAN[::40], syllables=(1, 3), spaced=False),
    Script(
        "japanese",
        "のあカ日本",
        8 * (4 * _KANA + _KATAKANA) + _HAN[::6],
        syllables=(1, 4),
        spaced=False,
    ),
    Script("hangul", "한국어를", _HANGUL, syllables=(1, 4)),
    Script(
        "arabic",
        "بحسعهمي",
        "اااااللللييييننمممووورررتتبهسعدكقفحجشصطخثذزضغظ",
        syllables=(2, 7),
        shaped=True,
        leftward=True,
    ),
    Script(
        "hebrew",
        "אבגמשת",
        "יייוווההאאללממתתרררבבשנדכקפעחגסטזצ",
        syllables=(2, 6),
        shaped=True,
        leftward=True,
    ),
    Script("devanagari", "कखगमह", "ककतततनननरररससमममलवपहदयबजगशचटथधभख", "ाािीीुूेेैोो", "", shaped=True),
    Script(
        "thai", "กขคมห", "กกกคคงจชดตทนนนบปพมมยรรรลวสสหอ", "ะาาาิีุูำ", "นงมกย", (2, 5), spaced=False
    ),
)
SCRIPT_BY_NAME = {script.name: script for script in SCRIPTS}

_POOL_WORDS = 160
_CODE_WORDS = (
    "if else for while return def class import from in not and or with let const var func type"
    " struct match case break try except yield async await new public static void int float"
).split()
_ENDINGS = ".example /index .org .json .txt .png .py .md .csv .cfg".split()


class Writer:
    """A made-up language in one script: the same few words again and again, as in real text.

    Args:
        rng: what decides everything that is written.
        script: how it is written.
    """

    def __init__(self, rng: np.random.Generator, script: Script):
        self.script = script
        self._rng = rng
        accents = {"a": "äáàâå", "e": "éèê", "o": "öóø", "u": "üúù", "n": "ñ", "c": "ç", "s": "š"}
        chosen = [letter for letter in accents if rng.random() < 0.25]
        self._accents = {
            letter: accents[letter][rng.integers(len(accents[letter]))] for letter in chosen
        }
        self._accented = script.name == "latin" and rng.random() < 0.5
        self._pool = [self._new_word() for _ in range(_POOL_WORDS)]

    def _new_word(self) -> str:
        rng, script = self._rng, self.script
        low, high = script.syllables
        # Short words are the more frequent ones.
        count = int(rng.integers(low, high + 1, 2).min())
        word = ""
        for _ in range(count):
            if not script.vowels or rng.random() < 0.85:
                word += script.onsets[rng.integers(len(script.onsets))]
            if script.vowels:
                word += script.vowels[rng.integers(len(script.vowels))]
            if script.endings and rng.random() < 0.4:
                word += script.endings[rng.integers(len(script.endings))]
        if self._accented:
            word = "".join(
                self._accents.get(letter, letter) if rng.random() < 0.3 else letter
                for letter in word
            )
        return word

    def word(self) -> str:
        """A word; those at the head of the pool come most often."""
        return self._pool[int(_POOL_WORDS * self._rng.random() ** 1.8)]

    def words(self, low: int, high: int) -> str:
        """So many words at least and at most, the first one capital where the script has case."""
        count = int(self._rng.integers(low, high + 1))
        text = (" " if self.script.spaced else "").join(self.word() for _ in range(count))
        return text[:1].upper() + text[1:] if self.script.cased else text

    def title(self) -> str:
        """A heading of one to four words."""
        text = self.words(1, 4)
        chance = self._rng.random()
        if self.script.cased and chance < 0.2:
            return text.upper()
        return text.title() if self.script.cased and chance < 0.6 else text

    def sentences(self, count: int) -> list[str]:
        """The words of so many sentences, with numbers and marks among them.

        Scripts without spaces give their characters one by one, so that lines break anywhere.
        """
        rng = self._rng
        stop = "。" if self.script.name in {"han", "japanese"} else "."
        comma = "、" if stop == "。" else ","
        if self.script.name == "thai":
            stop = comma = " "
        pieces: list[str] = []
        for _ in range(count):
            words = [self.word() for _ in range(int(rng.integers(4, 16)))]
            if self.script.cased:
                words[0] = words[0][:1].upper() + words[0][1:]
            for place in range(len(words) - 1):
                chance = rng.random()
                if chance < 0.07:
                    words[place] += comma
                elif chance < 0.1:
                    words[place] = self.number()
            words[-1] += stop if rng.random() < 0.9 else "!"
            pieces += words if self.script.spaced else list("".join(words))
        return pieces

    def number(self) -> str:
        """A number, price, share, date or time of day."""
        rng = self._rng
        value = float(10 ** rng.uniform(0, 5))
        kinds = (
            f"{value:.0f}",
            f"{value:,.0f}",
            f"{value:.1f}",
            f"{value:,.2f}",
            f"{rng.integers(101)}%",
            f"{rng.integers(24)}:{rng.integers(60):02}",
            f"{rng.integers(1, 29)}.{rng.integers(1, 13)}.{rng.integers(1950, 2040)}",
            f"{rng.integers(1950, 2040)}-{rng.integers(1, 13):02}-{rng.integers(1, 29):02}",
            f"${value:.2f}",
            f"-{value:.1f}",
        )
        return kinds[rng.integers(len(kinds))]


def identifier(rng: np.random.Generator, words: Writer) -> str:
    """A name as programs have it; `words` should write Latin."""
    first, second = words.word() or "x", words.word()
    kinds = (first, f"{first}_{second}", first + second.title(), first[:3], first.upper())
    return kinds[rng.integers(len(kinds))]


def file_name(rng: np.random.Generator, words: Writer) -> str:
    """The name of a file."""
    return f"{words.word()}{rng.integers(100)}{_ENDINGS[rng.integers(len(_ENDINGS))]}"


def code_line(rng: np.random.Generator, words: Writer) -> list[tuple[str, str]]:
    """A line of a program as (kind, text); kinds: plain, keyword, name, text, number, comment."""
    if rng.random() < 0.12:
        return [("comment", "# " + words.words(3, 9))]
    pieces: list[tuple[str, str]] = []
    if rng.random() < 0.5:
        pieces.append(("keyword", _CODE_WORDS[rng.integers(len(_CODE_WORDS))] + " "))
    marks = (" = ", "(", ", ", ".", " + ", ") ", "[", "] ", ": ", " == ", " -> ", " {", "; ")
    for _ in range(int(rng.integers(2, 6))):
        chance = rng.random()
        if chance < 0.55:
            pieces.append(("name" if chance < 0.2 else "plain", identifier(rng, words)))
        elif chance < 0.75:
            pieces.append(("number", str(rng.integers(1000))))
        else:
            pieces.append(("text", f'"{words.words(1, 3)}"'))
        pieces.append(("plain", marks[rng.integers(len(marks))]))
    if rng.random() < 0.08:
        pieces.append(("comment", "  // " + words.words(2, 6)))
    return pieces
