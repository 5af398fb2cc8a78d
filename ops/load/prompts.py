"""Random prompts of common words. Lorikeet and its peers receive the same prompts."""

import random

WORDS = """
about above across after again air all almost along also always an and animal another answer any
are around ask at away back be because been before began begin being below between big book both
boy but by call came can car carry change children city close cold come could country cut day did
different do does door down draw during each early earth eat end enough even every example eye
face fall family far farm father feel feet few field find fire first fish five follow food for
form found four friend from front full game gave get girl give go good got great green ground
group grow had half hand hard has have he head hear help her here high him his hold home horse
hour house how hundred idea if important in into is it its just keep kind knew know land large
last late learn leave left less let letter life light like line list little live long look low
made make man many mark may me mean men might mile money morning most mother mountain move much
music must my name near need never new next night no north not nothing now number of off often
old on once one only open or order other our out over own page paper part people picture place
plain plant play point problem pull put question quick rain ran read ready real red rest right
river road rock room round run said same saw say school sea second see seem sentence set she ship
short should show side simple since six small snow so some song soon sound south spell stand star
start state stay still stop story street strong study such sun sure table take talk teach tell
ten than that the their them then there these they thing think this those thought three through
time to today together told took top toward town travel tree true try turn two under until up us
use usual very voice walk want war warm was watch water way we week well went were west what
wheel when where which while white who whole why will wind with without wood word work world
would write year yellow yes yet you young your
""".split()  # noqa: SIM905 - a list literal would need one line per word


def prompt(seed: str, index: int, num_words: int, *, shared_words: int = 0) -> str:
    """Return a prompt: `shared_words` words that all prompts share, then `num_words` of its own."""
    shared = random.Random(f"{seed}/shared").choices(WORDS, k=shared_words)
    own = random.Random(f"{seed}/{index}").choices(WORDS, k=num_words)
    return " ".join(shared + own)
