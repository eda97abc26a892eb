"""The alphabets of the built-in recipes: characters in class order, the blank left out.

Longer ones stay in the projects that they come from; the recipes say where.
"""

from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits, punctuation

__all__ = [
    "DOCTR_FRENCH",
    "EASYOCR_BENGALI_G1",
    "EASYOCR_CYRILLIC_G1",
    "EASYOCR_CYRILLIC_G2",
    "EASYOCR_ENGLISH_G2",
    "EASYOCR_KANNADA_G2",
    "EASYOCR_LATIN_G1",
    "EASYOCR_LATIN_G2",
    "EASYOCR_TAMIL_G1",
    "EASYOCR_TELUGU_G2",
    "LATIN_36",
    "LATIN_94",
]

LATIN_36 = digits + ascii_lowercase
LATIN_94 = digits + ascii_letters + punctuation

# github.com/mindee/doctr, doctr/datasets/vocabs.py, "french"
DOCTR_FRENCH = LATIN_94 + "°£€¥¢฿" + "àâéèêëîïôùûüçÀÂÉÈÊËÎÏÔÙÛÜÇ"

# github.com/JaidedAI/EasyOCR, easyocr/config.py, "characters" of each recognition model
_SYMBOLS = digits + punctuation + " "
_UPPER = ascii_uppercase + ascii_lowercase
_LOWER_FIRST = _SYMBOLS + ascii_letters
EASYOCR_ENGLISH_G2 = _SYMBOLS + "€" + _UPPER
EASYOCR_LATIN_G1 = (
    _SYMBOLS + _UPPER + "ÀÁÂÃÄÅÆÇÈÉÊËÍÎÑÒÓÔÕÖØÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿąęĮįıŁłŒœŠšųŽž"
)
EASYOCR_LATIN_G2 = "".join(map(chr, range(32, 127))) + (
    "ªÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿĀāĂăĄąĆćČčĎďĐđĒēĖėĘęĚěĞğĨĩĪ"
    "īĮįİıĶķĹĺĻļĽľŁłŃńŅņŇňŒœŔŕŘřŚśŞşŠšŤťŨũŪūŮůŲųŸŹźŻżŽžƏƠơƯưȘșȚțə̇ḌḍḶḷṀṁṂṃṄṅṆṇṬṭẠạẢảẤấẦầẨẩẪẫẬậẮ"
    "ắẰằẲẳẴẵẶặẸẹẺẻẼẽẾếỀềỂểỄễỆệỈỉỊịỌọỎỏỐốỒồỔổỖỗỘộỚớỜờỞởỠỡỢợỤụỦủỨứỪừỬửỮữỰựỲỳỴỵỶỷỸỹ€"
)
EASYOCR_CYRILLIC_G1 = (
    _LOWER_FIRST
    + "ЁЂЄІЇЈЉЊЋЎЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюяёђєіїјљњћўџҐґҮүө"
)
EASYOCR_CYRILLIC_G2 = (
    _SYMBOLS
    + "€₽"
    + _UPPER
    + "АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдеёжзийклмнопрстуфхцчшщъыьэюяЂђЃѓЄєІіЇїЈјЉљЊњЋћЌќЎўЏџ"
    + "ҐґҒғҚқҮүҲҳҶҷӀӏӢӣӨөӮӯ"
)
EASYOCR_BENGALI_G1 = _LOWER_FIRST + "।ঁংঃঅআইঈউঊঋঌএঐওঔকখগঘঙচছজঝঞটঠডঢণতথদধনপফবভমযরলশষসহ়ািীুূৃেৈোৌ্ৎড়ঢ়য়০১২৩৪৫৬৭৮৯"
EASYOCR_KANNADA_G2 = _LOWER_FIRST + "ಂಃಅಆಇಈಉಊಋಎಏಐಒಓಔಕಖಗಘಙಚಛಜಝಞಟಠಡಢಣತಥದಧನಪಫಬಭಮಯರಲಳವಶಷಸಹಾಿೀುೂೃೆೇೈೊೋೌ್೦೧೨೩೪೫೬೭೮೯"
EASYOCR_TAMIL_G1 = _LOWER_FIRST + "ஃஅஆஇஈஉஊஎஏஐஒஓஔகஙசஜஞடணதநனபமயரறலளழ"
EASYOCR_TELUGU_G2 = _LOWER_FIRST + "ఁంఃఅఆఇఈఉఊఋఌఎఏఐఒఓఔకఖగఘఙచఛజఝఞటఠడఢణతథదధనపఫబభమయరఱలళవశషసహాిీుూృౄెేైొోౌ్ౠౡౢౣ"
