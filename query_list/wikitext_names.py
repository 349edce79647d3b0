"""The names that mean something in wikitext, and the hash table in which kernels look them up.

A name is kept behind a byte that says of what kind it is (its domain), without capital letters of
ASCII and with spaces for underscores; those of entities as they are.
"""

import functools
import html.entities
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

TAG, ENTITY, NAMESPACE, ENDING, SCHEME = range(1, 6)  # domains
INLINE, BLOCK, UNSEEN, REMOVED, NOWIKI, PRE, VERSE, TABLE_TAG = range(1, 9)  # kinds of tags
MEDIA, HIDDEN = 1, 2  # kinds of namespaces
WITH_SLASHES, BARE = 1, 2  # kinds of schemes

STACK, STATE = 1 << 14, 256  # int64s that kernels need for what is open, and for a page
SLOTS = 1 << 14
MAX_NAME = 64  # bytes
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3

TAGS = {  # MediaWiki's Sanitizer::getRecognizedTagData, and extensions
    INLINE: "abbr b bdi bdo big cite code data del dfn em font i ins kbd mark nobr noinclude"
    " onlyinclude q rb rp rt rtc ruby s samp small span strike strong sub sup time tt u var wbr",
    BLOCK: "blockquote br caption center dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p tbody td tfoot"
    " th thead tr ul",
    UNSEEN: "includeonly indicator ref section templatedata templatestyles",
    REMOVED: "categorytree ce chem gallery graph hiero imagemap inputbox mapframe maplink math"
    " phonos references score source syntaxhighlight timeline",
    NOWIKI: "nowiki",
    PRE: "pre",
    VERSE: "poem",
    TABLE_TAG: "table",
}
RAW = (UNSEEN, REMOVED, NOWIKI, PRE)  # nothing but the closing tag means something inside
ENDINGS = (
    "apng bmp djvu flac gif jpeg jpg mid midi mp3 mp4 mpeg mpg oga ogg ogv opus pdf png stl svg"
    " tif tiff wav webm webp xcf"
)
SCHEMES = {
    WITH_SLASHES: "ftp ftps git gopher http https irc ircs mms nntp redis sftp ssh svn telnet"
    " worldwind",
    BARE: "bitcoin geo magnet mailto matrix news sip sips sms tel urn xmpp",
}
CATEGORIES, PICTURES, MEDIA_FILES = 14, 6, -2  # numbers of namespaces
ENGLISH = {"category": HIDDEN, "file": MEDIA, "image": MEDIA, "media": MEDIA}

# The codes of all Wikipedias of 2026, closed ones too (pywikibot's wikipedia_family.py), and others
# that links to them are made with.
LANGUAGES = """
    aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az
    azb ba ban bar bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bol bpy
    br bs btm bug bxr ca cbk-zam cdo ce ceb ch cho chr chy ckb cmn co cr crh cs csb cu cv cy da
    dag de dga din diq dk dsb dtp dty dv dz ee egl el eml en eo es et eu ext fa fat ff fi fiu-vro
    fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv
    ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is isv it
    iu ja jam jbo jv ka kaa kab kai kaj kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks
    ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mag
    mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl my myv mzn na
    nah nan nap nb nds nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nup nv ny oc olo om or os
    pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ppl ps pt pwn qu rki rm rmy rn ro roa-rup
    roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn si simple sk skr sl
    sm smn sn so sq sr srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th ti tig tk tl
    tly tn to tok tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war
    wo wuu xal xh xmf yi yo yue za zea zgh zh zh-classical zh-cn zh-min-nan zh-tw zh-yue zu
"""


class Names(NamedTuple):
    """The table: `index` int64 holds SLOTS entries (0: free) and then, for each name, where its
    domain stands in `names` uint8, the name's length, and its value.

    Values: of a tag its kind, and from bit 8 on a number of its own if it is RAW; of an entity its
    UTF-8, the first byte lowest, and the number of bytes from bit 56 on; else the kind.
    """

    index: np.ndarray
    names: np.ndarray
    raw_tags: int


def name_table(namespaces: Mapping[int, str]) -> Names:
    """The table for a wiki whose namespaces have these local names, by number."""
    local = (namespaces.get(number) or "" for number in (CATEGORIES, PICTURES, MEDIA_FILES))
    return _name_table(*local)


@functools.lru_cache(maxsize=8)
def _name_table(category: str, picture: str, media: str) -> Names:
    entries: dict[bytes, int] = {}
    raw_tags = 0
    for kind, tags in TAGS.items():
        for tag in tags.split():
            entries[_key(TAG, tag)] = kind | raw_tags << 8
            raw_tags += kind in RAW
    for name, characters in html.entities.html5.items():
        if name.endswith(";"):
            packed = characters.encode()
            value = int.from_bytes(packed, "little") | len(packed) << 56
            entries[bytes([ENTITY]) + name[:-1].encode()] = value
    for code in LANGUAGES.split():
        entries[_key(NAMESPACE, code)] = HIDDEN
    for local, kind in ((category, HIDDEN), (picture, MEDIA), (media, MEDIA)):
        for form in _cases(local):
            entries[_key(NAMESPACE, form)] = kind
    for name, kind in ENGLISH.items():
        entries[_key(NAMESPACE, name)] = kind
    for ending in ENDINGS.split():
        entries[_key(ENDING, ending)] = MEDIA
    for kind, schemes in SCHEMES.items():
        for scheme in schemes.split():
            entries[_key(SCHEME, scheme)] = kind
    return Names(*_hashed(entries), raw_tags)


def _cases(name: str) -> set[str]:
    """The ways to write a name's first letter; kernels know the case of ASCII's letters alone."""
    return {name, name.lower(), name.upper(), name[:1].lower() + name[1:]} - {""}


def _key(domain: int, name: str) -> bytes:
    return bytes([domain]) + name.replace("_", " ").encode().lower()


def _hashed(entries: Mapping[bytes, int]) -> tuple[np.ndarray, np.ndarray]:
    index = np.zeros(SLOTS + 3 * len(entries), np.int64)
    place, first = SLOTS, 0
    for key, value in entries.items():
        hashed = FNV_OFFSET  # FNV-1a of 64 bits, folded
        for byte in key:
            hashed = (hashed ^ byte) * FNV_PRIME % 2**64
        slot = (hashed ^ hashed >> 32) % SLOTS
        while index[slot]:
            slot = (slot + 1) % SLOTS
        index[slot] = place
        index[place : place + 3] = first, len(key) - 1, value
        place, first = place + 3, first + len(key)
    return index, np.frombuffer(b"".join(entries), np.uint8)
