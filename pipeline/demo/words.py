"""The demo's texts: what shops, museums and bloggers write beside a picture.

Every text is a function of the picture and a few words of context (host, page, position), drawn by
hash from a fixed vocabulary, so the whole web is the same on every machine. Brands, people and
collections are invented.
"""

import hashlib
from collections.abc import Sequence

from pipeline.demo.pictures import Picture

NOUNS = {
    "dress": "dress", "hat": "hat", "longsleeve": "sweater", "outwear": "jacket",
    "pants": "trousers", "shirt": "shirt", "shoes": "shoes", "shorts": "shorts",
    "skirt": "skirt", "t-shirt": "t-shirt",
}  # fmt: skip
PLURALS = {
    "dress": "dresses", "hat": "hats", "longsleeve": "sweaters", "outwear": "jackets",
    "pants": "trousers", "shirt": "shirts", "shoes": "shoes", "shorts": "shorts",
    "skirt": "skirts", "t-shirt": "t-shirts",
}  # fmt: skip
BRANDS = (
    "Norrwind", "Lumeria", "Halden & Rook", "Petite Orage", "Vesper Lane", "Tallow & Thread",
    "Birch and Brine", "Solenne", "Marlowe's", "O'Dellan", "Kintaro Mills", "Ostrava Works",
)  # fmt: skip
PLACES = (
    "Lisbon", "Kyoto", "Marrakesh", "Oslo", "Buenos Aires", "Edinburgh", "Naples", "Istanbul",
    "Tallinn", "Montreal", "Cape Town", "Hanoi", "San Sebastián", "Reykjavík",
)  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
OCCASIONS = (
    "a rainy Sunday", "the wedding of a friend", "the first day of school", "a long train journey",
    "an evening at the opera", "a picnic by the river", "the office party", "a walk in the woods",
)  # fmt: skip
MATERIALS = ("cotton", "linen", "wool", "silk", "viscose", "hemp", "polyester", "jersey")
FAMILIES = ("Lindqvist", "Okafor", "Moreau", "Takeda", "Ferreira", "Novák", "Haddad", "Byrne")
SIZES = ("XS", "S", "M", "L", "XL", "36", "38", "40", "42")

SHOP = (
    "{Shade} {look} by {brand}",
    "{brand} {look}, {shade}, size {size}",
    "{Look} in {shade} | {brand}",
    "Buy the {shade} {look} online - {brand}",
    "{brand}: {noun} {shade}, {material}, {size}",
)
PLAIN = ("{colour} {noun}", "{noun}", "the {noun}", "{Noun}", "{noun} {colour}", "{shade} {noun}")
BLOG = (
    "The {shade} {look} I wore in {place}",
    "My {look} on the way to {occasion}",
    "{place} in {season}: the {shade} {noun} and the sea",
    "What to wear to {occasion}? The {shade} {noun}, of course",
    "In the window of a shop in {place}: {look}",
)
MUSEUM_ALT = (
    "The {shade} {look} in the collection of the museum",
    "{Shade} {look}, seen from the front",
    "The {noun} laid flat on the floor of the studio",
)
MUSEUM_CAPTION = (
    "{Look}, {material}, {place}, {year}. Gift of the {family} family.",
    "{Shade} {noun} from {place}, {year}. On view in the east wing of the museum.",
    "{Look}. {Material}, made in {place} about {year}; worn to {occasion}.",
)
NO_QUERY = (
    "DSC{number}x",
    "IMG{number}q{number}",
    "p{number}z_final{number}",
    "{number}x{number}q",
)
GERMAN = (
    "{noun} in {colour}, Baumwolle, Größe {size}",
    "{noun} von {brand}, Farbe {colour}",
    "{noun} für den Frühling – {brand}",
)
FRENCH = (
    "{noun}, coloris {colour}, en coton, taille {size}",
    "L'élégance à {place} : {noun} {brand}",
    "{noun} pour l'été, déjà portée à {place}",
)
JAPANESE = ("{colour}の{noun} 綿 {size}サイズ", "{noun}({colour})の写真", "春の新作 {colour}{noun}")
RUSSIAN = (
    "{noun}, цвет {colour}, хлопок, размер {size}",
    "Купить: {noun} {brand}",
    "{noun} ({colour}) на каждый день",
)
GARMENTS_ABROAD = {  # in the order of NOUNS
    "de": "Kleid Hut Pullover Jacke Hose Hemd Schuhe Shorts Rock T-Shirt",
    "fr": "Robe Chapeau Pull Veste Pantalon Chemise Chaussures Short Jupe T-shirt",
    "ja": "ワンピース 帽子 セーター ジャケット ズボン シャツ 靴 ショートパンツ スカート Tシャツ",
    "ru": "Платье Шляпа Свитер Куртка Брюки Рубашка Туфли Шорты Юбка Футболка",
}
COLOURS = (
    "beige", "black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red",
    "white", "yellow",
)  # fmt: skip
COLOURS_ABROAD = {  # in the order of COLOURS
    "de": "beige schwarz blau braun grün grau orange rosa lila rot weiß gelb",
    "fr": "beige noir bleu marron vert gris orange rose violet rouge blanc jaune",
    "ja": "ベージュ 黒 青 茶色 緑 グレー オレンジ ピンク 紫 赤 白 黄色",
    "ru": "бежевый чёрный синий коричневый зелёный серый оранжевый розовый фиолетовый красный "
    "белый жёлтый",
}
ABROAD = {"de": GERMAN, "fr": FRENCH, "ja": JAPANESE, "ru": RUSSIAN}


def pick(options: Sequence, *context: object) -> object:
    """One of `options`, by hash of the context."""
    key = "\0".join(map(str, context)).encode()
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return options[number % len(options)]


def text(picture: Picture, style: Sequence[str], *context: object) -> str:
    """A text about the picture in one of a style's phrases."""
    where = (picture.name, *context)
    noun, look, shade = NOUNS[picture.garment], picture.look, picture.shade
    material = pick(MATERIALS, "material", picture.name)
    return pick(style, "phrase", *where).format(
        noun=noun, Noun=noun.capitalize(), look=look, Look=look[0].upper() + look[1:],
        shade=shade, Shade=shade.capitalize(), colour=picture.colour,
        brand=pick(BRANDS, "brand", picture.name), place=pick(PLACES, "place", *where),
        season=pick(SEASONS, "season", *where), occasion=pick(OCCASIONS, "occasion", *where),
        material=material, Material=material.capitalize(), year=pick(range(1890, 1990), *where),
        family=pick(FAMILIES, "family", picture.name), size=pick(SIZES, "size", *where),
        number=pick(range(10**8, 10**9), "number", *where),
    )  # fmt: skip


def text_abroad(picture: Picture, language: str, *context: object) -> str:
    """A text about the picture in German (de), French (fr), Japanese (ja) or Russian (ru)."""
    where = (picture.name, language, *context)
    garments = dict(zip(NOUNS, GARMENTS_ABROAD[language].split(), strict=True))
    colours = dict(zip(COLOURS, COLOURS_ABROAD[language].split(), strict=True))
    return pick(ABROAD[language], "phrase", *where).format(
        noun=garments[picture.garment],
        colour=colours[picture.colour],
        brand=pick(BRANDS, "brand", picture.name),
        place=pick(PLACES, "place", *where),
        size=pick(SIZES, "size", *where),
    )


def long_text(picture: Picture) -> str:
    """Some 4,000 characters of words stuffed into one alt text to please search engines."""
    words = [f"{shade} {noun}" for shade in COLOURS for noun in PLURALS.values()]
    start = int(picture.name.rpartition("-")[2])
    return f"{picture.look}, " + ", ".join(words[start:] + words + words[:start])


def odd_text(picture: Picture, kind: int) -> str:
    """A text that is hard on whoever normalises, prints or escapes it; `kind` counts from 0."""
    noun, shade = NOUNS[picture.garment], picture.shade
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" for c in f"{shade} {noun}")
    kinds = (
        wide,
        f"\U0001f45a {shade} {noun} \U0001f457\u200d\u2728 NEW!!!",
        f"<script>alert('{noun}')</script> {shade} {noun}",
        f'"{shade}" & <b>{noun}</b> &amp; more',
        f"{shade}\u00a0{noun}\u200b \u2014 caf\u00e9, cafe\u0301, \ufb01ne",
        f"{shade.upper()} {noun.upper()} !!! SALE !!! -50%",
        f"\u202e{noun}\u202c {shade}",
        f"  {shade}\n\t {noun}\r\n   by   hand  ",
    )
    return kinds[kind % len(kinds)]
