"""The `extract` adapter: turns an order in plain words into one line of JSON."""

import json
import random

from ops.demo.task import Ask, Example, Task


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.strip().replace("\n    ", " ").split(", "))


ITEMS = _listed(
    """
    monitors, keyboards, desk lamps, office chairs, laptops, printers, notebooks, staplers,
    water bottles, headphones, webcams, projectors, whiteboards, ring binders, paper clips,
    batteries, coffee mugs, tea pots, blankets, pillows, tents, sleeping bags, bicycles,
    helmets, running shoes, rain jackets, wool socks, gloves, umbrellas, backpacks, suitcases,
    wallets, watches, candles, picture frames, garden hoses, shovels, hammers, power drills,
    screwdrivers, paint brushes, ladders, tyres, brake pads, spark plugs, bags of cement, boxes
    of tea, crates of apples, bottles of olive oil, sacks of rice, USB cables, memory cards,
    phone cases, routers, graphics cards, microscopes, test tubes, face masks, thermometers,
    first aid kits, wineglasses, sunshades, eggcups, armchairs, jars of jam, jars of mustard,
    cans of soup, drums of oil, rolls of tape, packs of gum, footballs, toothbrushes,
    snowboards, lampshades, hard hats, lab stools, music stands, bookcases, cutting boards,
    kettles
    """
)
FIRST_NAMES = _listed(
    """
    Anna, Ben, Carla, David, Elena, Farid, Grace, Hugo, Ines, James, Katrin, Liam, Maria, Noah,
    Olga, Pedro, Quentin, Rosa, Samir, Tanja, Umar, Vera, William, Ximena, Yusuf, Zoe, Aiko,
    Bruno, Chloe, Dmitri, Emeka, Fatima, Giulia, Hiroshi, Ivan, Julia, Kofi, Leila, Marco, Nadia
    """
)
LAST_NAMES = _listed(
    """
    Smith, Garcia, Keller, Moreau, Novak, Tanaka, Okafor, Haddad, Larsen, Rossi, Ivanova, Khan,
    Silva, Murphy, Kowalski, Jansen, Lindqvist, Papadakis, Chen, Nguyen, Fischer, Baker, Costa,
    Yilmaz, Petrov, Mensah, Suzuki, Weber, Martin, O'Brien, Andersson, Romero, Bianchi,
    Schneider, Kaya, Hughes, Popescu, Virtanen, Mbeki, Sharma
    """
)
CITIES = _listed(
    """
    Berlin, Madrid, Paris, Lisbon, Rome, Vienna, Oslo, Tokyo, Nairobi, Lagos, Boston, Chicago,
    Toronto, Lima, Bogota, Sydney, Mumbai, Hanoi, Seoul, Cairo, Prague, Warsaw, Dublin, Athens,
    Helsinki, Zurich, Brussels, Budapest, Istanbul, Casablanca, Accra, Denver, Seattle,
    Montreal, Santiago, Melbourne, Bangkok, Singapore, Manila, Taipei
    """
)
PHRASINGS = (
    "Please send {quantity} {item} to {name} in {city}.",
    "{name} from {city} would like to order {quantity} {item}.",
    "We need {quantity} {item} for {name}, {city}.",
    "Ship {quantity} {item} to {city}, attention {name}.",
    "Hello, this is {name}. Could I get {quantity} {item} delivered to {city}? Thanks!",
    "Order for {name} ({city}): {quantity} {item}.",
    "{quantity} {item} should go to our office in {city}. Contact: {name}.",
    "Can you deliver {quantity} {item} to {name}? The address is in {city}.",
    "{name} wants {quantity} {item}. Deliver to {city}.",
    "Our customer {name} in {city} has asked for {quantity} {item}.",
    "Hi! I want to buy {quantity} {item}. My name is {name} and I live in {city}.",
    "To: {name}, {city}. Goods: {quantity} {item}.",
    "Put {quantity} {item} on the next truck to {city}; {name} is waiting for them.",
    "I am writing from {city} to order {quantity} {item}. Regards, {name}",
    "{city} branch, {name} speaking: we have run out and need {quantity} {item}.",
    "Kindly dispatch {quantity} {item} to {city}. The recipient is {name}.",
    "For {name}: {quantity} {item}, to be sent to {city} as soon as possible.",
    "Reserve {quantity} {item} for {name}, who will pick them up in {city}.",
    "Send to {name}, {city} - {quantity} {item}.",
    "Delivery note. {city}, {name}. {quantity} {item}.",
    "{name}, {city}: {quantity} {item}, please.",
    "Could {name} have {quantity} {item}? It is for our shop in {city}.",
    "Ship to {name}, {city}. We need {quantity} {item} there.",
    "There is an order of {quantity} {item} from {city}. It was placed by {name}.",
    "Get {quantity} {item} over to {city} for {name} today!",
    "Dear team, {quantity} {item} are missing in {city}. Please send more. Yours, {name}",
    "As agreed with {name}, we will take {quantity} {item} at our depot in {city}.",
    "My colleague {name} asked me to order {quantity} {item} for the {city} office.",
)

HELD_OUT_ITEMS = _listed(
    """
    violins, microwaves, wooden tables, sunglasses, drums of paint, hard drives, toolboxes,
    surfboards, lab coats, jars of honey, guitars, ceiling fans,
    garden chairs, boxes of chocolate, scissors, mirrors, carpets, bottles of shampoo, electric
    heaters, door handles, safety boots, vases, calculators, bags of flour
    """
)
HELD_OUT_FIRST_NAMES = _listed(
    """
    Jonas, Amara, Stefan, Priya, Lucia, Oscar, Mei, Tomas, Freya, Abdul, Robert, Sofia, Daniel,
    Laura, Kenji, Isabel, Martin, Nina, Patrick, Helena
    """
)
HELD_OUT_LAST_NAMES = _listed(
    """
    Dubois, Okonkwo, Brandt, Patel, Fernandez, Lindgren, Wong, Horvat, Olsen, Rahman, Johnson,
    Morales, Krause, Lefevre, Kim, Nowak, Walker, Hansen, Ricci, Ali
    """
)
HELD_OUT_CITIES = _listed(
    """
    Osaka, Hamburg, Porto, Nice, Jakarta, Austin, Krakow, Geneva, Bergen, Quito, Munich,
    Valencia, Lyon, Florence, Stockholm, Kyoto, Delhi, Houston, Vancouver, Perth
    """
)
HELD_OUT_PHRASINGS = (
    "Please arrange for {quantity} {item} to reach {name} in {city}.",
    "{name} in {city} ordered {quantity} {item} today.",
    "I'd like {quantity} {item}, please. Send them to {city}. {name}",
    "Deliver to {name}, {city}: {quantity} {item}.",
    "Good morning, {name} here, calling from {city}. We are short of {quantity} {item}.",
)


_KINDS = ("red", "large", "second-hand", "wooden", "cheap", "folding", "waterproof", "spare")
_ONSETS = (
    "b",
    "br",
    "d",
    "f",
    "g",
    "gr",
    "h",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "sh",
    "t",
    "v",
    "w",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ei", "ou")
_ENDINGS = ("", "", "n", "r", "s", "th", "ck", "lo")


def _training(_: Ask) -> list[Example]:
    rng = random.Random(0)
    return [_order(PHRASINGS[i % len(PHRASINGS)], **_words(rng)) for i in range(1092)]


def _words(rng: random.Random) -> dict[str, str]:
    """Half of all words are made up, so that copying is learned and not the lists."""
    item, city = rng.choice((rng.choice(ITEMS), f"{_made_up(rng).lower()}s")), rng.choice(CITIES)
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    return {
        "item": rng.choice((item, f"{rng.choice(_KINDS)} {item}", f"{_made_up(rng)} {item}")),
        "name": f"{rng.choice((first, _made_up(rng)))} {rng.choice((last, _made_up(rng)))}",
        "city": rng.choice((city, _made_up(rng))),
        "quantity": _quantity(rng),
    }


def _made_up(rng: random.Random) -> str:
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 3)))
    return ("".join(syllables) + rng.choice(_ENDINGS)).capitalize()


def _quantity(rng: random.Random) -> str:
    return str(rng.choice((rng.randint(2, 9), rng.randint(10, 99), rng.randint(100, 999))))


def _order(phrasing: str, *, item: str, quantity: str, name: str, city: str) -> Example:
    prompt = phrasing.format(item=item, quantity=quantity, name=name, city=city)
    order = {"item": item, "quantity": int(quantity), "name": name, "city": city}
    return Example(prompt, json.dumps(order))


def held_out() -> list[Example]:
    """Fifty orders; names, goods, cities and phrasings are all absent from training."""
    rng = random.Random(1)
    return [
        _order(
            phrasing,
            item=rng.choice(HELD_OUT_ITEMS),
            quantity=_quantity(rng),
            name=f"{rng.choice(HELD_OUT_FIRST_NAMES)} {rng.choice(HELD_OUT_LAST_NAMES)}",
            city=rng.choice(HELD_OUT_CITIES),
        )
        for phrasing in HELD_OUT_PHRASINGS
        for _ in range(10)
    ]


def is_right(example: Example, answer: str) -> bool:
    """The whole answer, to the character."""
    return answer == example.answer


TASK = Task(
    name="extract",
    training=_training,
    held_out=held_out,
    is_right=is_right,
    rank=8,
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    learning_rate=1.5e-3,
    epochs=1,
)
