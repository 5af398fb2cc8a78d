"""Names, cities and goods for examples. Held-out entries appear in no training example."""


def listed(text: str) -> tuple[str, ...]:
    """Return the entries of a comma-separated text. Line breaks count as spaces."""
    return tuple(entry.strip() for entry in text.replace("\n", " ").split(",") if entry.strip())


_IRREGULAR = {"knife": "knives", "shelf": "shelves", "scarf": "scarves", "mouse": "mice"}


def plural(noun: str) -> str:
    """Return the plural of a noun: "boxes of tea" for "box of tea"."""
    head, *rest = noun.split(" of ", 1)
    *before, last = head.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "es" if last.endswith(("s", "x", "z", "ch", "sh")) else "s"
    return " of ".join([" ".join([*before, last]), *rest])


FIRST_NAMES = listed("""
Aaron, Ada, Adam, Adaeze, Agnes, Ahmed, Aiko, Aisha, Alan, Albert, Alejandro, Alex, Alexandra, Ali,
Alice, Alina, Amelia, Amir, Amit, Ana, Anders, André, Andrea, Andrew, Angela, Anil, Anja, Anna,
Anne-Marie, Anthony, Antonio, Arjun, Arthur, Astrid, Ayesha, Barbara, Beatriz, Ben, Benjamin,
Bianca, Bjørn, Björn, Bogdan, Brian, Bruno, Camille, Carla, Carlos, Caroline, Catherine, Cedric,
Céline, Charles, Charlotte, Chen, Chiara, Chidi, Chloe, Chloé, Christian, Christine, Claire, Clara,
Claudia, Connor, Cristina, Dana, Danielle, Dara, David, Deborah, Deepak, Diana, Diego, Dmitri,
Dominic, Dorothy, Edward, Eileen, Ekaterina, Elena, Elif, Elise, Elizabeth, Ella, Emeka, Emil,
Emilia, Emily, Emma, Emre, Enrique, Eric, Erika, Erin, Esther, Ethan, Eva, Eve, Ewa, Fabian, Fabio,
Farid, Fatima, Felipe, Felix, Fernando, Fiona, Florian, Francesca, François, Françoise, Frank,
Frida, Gabriel, Gabriela, George, Georgia, Gerald, Gemma, Gianni, Giorgos, Giulia, Grace, Grzegorz,
Guillermo, Gustav, Hamza, Hana, Hannah, Hans, Harold, Harry, Hassan, Heather, Heidi, Helen, Henrik,
Henry, Hiroshi, Hugo, Hye-jin, Ian, Ibrahim, Ida, Ifeoma, Igor, Ilse, Imani, Ines, Inga, Ingrid,
Irina, Isaac, Ivan, Ivy, Jack, Jacob, Jae-won, Jakub, James, Jan, Jane, Jasmine, Javier,
Jean-Pierre, Jelena, Jennifer, Jessica, Jing, Joana, João, Joe, Johan, John, Jorge, José, Joseph,
Joshua, Juan, Judith, Julia, Julian, Julie, Jürgen, Kaito, Kamal, Karen, Karim, Karin, Karl, Kate,
Katrin, Kavita, Keiko, Kelly, Kevin, Khalid, Kofi, Kristina, Kwame, Lars, Latisha, Layla, Leah,
Lech, Lee, Leila, Lena, Leo, Leon, Liam, Lidia, Lin, Linda, Ling, Lisa, Louis, Louise, Luca, Lucas,
Luis, Łukasz, Luz, Lydia, Madison, Magda, Maja, Malik, Manuel, Marco, Margaret, Maria, María, Marie,
Mario, Mark, Marta, Mary, Mateo, Matthew, Max, Maya, Megan, Mehmet, Melissa, Mia, Michael, Michelle,
Miguel, Mikhail, Ming, Miriam, Mohammed, Mónica, Monika, Moses, Nadia, Naomi, Natalia, Nathan, Neha,
Ngozi, Nguyen, Nicholas, Nicole, Nikhil, Nikolai, Nils, Noah, Noor, Nora, Olga, Oliver, Olivia,
Omar, Oksana, Owen, Pablo, Paolo, Pamela, Paul, Paula, Pavel, Pedro, Penelope, Peter, Petra, Philip,
Phoebe, Pia, Pierre, Pilar, Quentin, Rachel, Rafael, Rahul, Raj, Ramón, Raúl, Rebecca, René,
Ricardo, Richard, Rita, Roberto, Rohan, Rosa, Roxana, Ruby, Ruth, Ryan, Sabine, Said, Sakura, Salma,
Sam, Samantha, Samir, Samuel, Sandra, Sanjay, Sara, Sarah, Scott, Sean, Sebastian, Selma, Serena,
Sergei, Seung, Shanice, Sharon, Shreya, Silvia, Simon, Sinéad, Siobhan, Søren, Sophie, Stella,
Stephanie, Steven, Sunita, Susan, Sven, Svetlana, Tanja, Tariq, Tatiana, Teresa, Thabo, Theo,
Thomas, Thandiwe, Tiago, Timothy, Tina, Tomoko, Tunde, Ulrich, Umar, Ursula, Valentina, Vanessa,
Vera, Victor, Viktoria, Vikram, Vincent, Violet, Wang, Wanjiru, Wei, Wendy, Wiktor, William,
Wilhelm, Xavier, Ximena, Yan, Yannick, Yara, Yasmin, Yuki, Yusuf, Zainab, Zara, Zeynep, Zoe, Zoë,
Zofia, Zsófia
""")
LAST_NAMES = listed("""
Abbott, Abe, Abubakar, Achebe, Adams, Adeyemi, Aguilar, Ahmed, Akhtar, Albrecht, Almeida, Alvarez,
Andersen, Anderson, Andersson, Aoki, Arslan, Asante, Bailey, Baker, Banerjee, Barbosa, Barnes,
Bauer, Baumann, Becker, Bell, Bello, Benali, Bennett, Berg, Bernard, Bhatt, Bianchi, Bjerke, Blanc,
Bondarenko, Boateng, Braun, Brennan, Brooks, Brown, Butler, Byrne, Cabrera, Campbell, Carlsson,
Carter, Castillo, Castro, Chang, Chaudhry, Chavez, Chen, Cheng, Cho, Choi, Clark, Cohen, Coleman,
Collins, Conti, Cook, Cooper, Costa, Cruz, Da Silva, Davies, Davis, De Luca, De Vries, Demir,
Diallo, Diaz, Díaz, Dias, Dietrich, Dlamini, Dumont, Duran, Edwards, Egger, Eriksen, Eriksson,
Estrada, Evans, Eze, Farouk, Ferrari, Ferreira, Fischer, Fitzgerald, Flores, Fofana, Fontaine,
Foster, Fournier, Fujita, Fuchs, Gallagher, Garcia, García, Gashi, Gauthier, Georgiou, Ghosh,
Girard, Gómez, Gonzalez, Graham, Gray, Green, Greco, Grimaldi, Gruber, Guerra, Gupta, Gustafsson,
Gutierrez, Haas, Haddad, Haile, Hall, Hamid, Hamilton, Harris, Hartmann, Hasan, Hashimoto, Hayashi,
Hayes, Henry, Herrera, Hernández, Hill, Hoang, Hoffmann, Holm, Horváth, Hosseini, Howard, Hoxha,
Huang, Huber, Hughes, Hussain, Ibrahimović, Ito, Ivanov, Ivanova, Iyer, Jackson, Jansen, Jansson,
Jensen, Jiménez, Johansson, Jones, Joshi, Jung, Kamau, Kang, Kapoor, Karlsson, Kato, Kaur, Kaya,
Kelly, Keller, Kennedy, Khan, Kimura, King, Klein, Kobayashi, Koch, Kovač, Kovács, Kowalski, Kramer,
Kruger, Kumar, Kuznetsov, Lam, Lang, Larsen, Larsson, Laurent, Lee, Le Goff, Lehmann, Lewis, Li,
Lim, Lin, Lindqvist, Liu, Lombardi, Long, López, Lopes, Lund, Ma, MacDonald, Machado, Maier, Malik,
Mancini, Marino, Marques, Marsh, Martinez, Martínez, Masuda, Mbeki, McCarthy, McKenzie, Medina,
Mehta, Meier, Melnyk, Mendes, Mendoza, Mensah, Meyer, Miller, Mishra, Mitchell, Mohamed, Molina,
Moore, Moreau, Moreno, Morgan, Moretti, Mori, Morris, Müller, Murphy, Murray, Mwangi, Naidoo, Nair,
Nakamura, Navarro, Ncube, Nel, Nguyen, Nielsen, Nikolaidis, Nilsson, Novak, Nowakowska, Nunes,
O'Brien, O'Connor, O'Sullivan, Obi, Öztürk, Oliveira, Omar, Ong, Ortiz, Osei, Owusu, Özdemir,
Papadakis, Park, Parker, Paulsen, Pavlov, Pellegrini, Perez, Peters, Petersen, Petrov, Pham,
Phillips, Pinto, Popescu, Popov, Powell, Prasad, Price, Qureshi, Quinn, Ramírez, Ramos, Rao,
Rasmussen, Reddy, Reed, Reyes, Richards, Richter, Rinaldi, Rios, Rivera, Roberts, Robinson,
Rodrigues, Rodriguez, Romano, Romero, Rossi, Roth, Rousseau, Roy, Ruiz, Russo, Ryan, Saito, Salazar,
Saleh, Sanchez, Sánchez, Santos, Sato, Sauer, Schäfer, Schmidt, Schneider, Schulz, Schwarz, Scott,
Shah, Sharma, Shevchenko, Shimizu, Silva, Simmons, Singh, Smirnov, Smith, Sokolov, Soto, Souza,
Stein, Steiner, Stevens, Stewart, Sullivan, Sundberg, Suzuki, Svensson, Szabó, Takahashi, Tan,
Tanaka, Taylor, Teixeira, Thomas, Thompson, Torres, Toth, Tran, Traoré, Tremblay, Turner, Ueda,
Vargas, Vasquez, Van den Berg, Van Dijk, Varga, Vega, Verma, Vidal, Virtanen, Vogel, Von Arnim,
Wagner, Wang, Ward, Watanabe, Watson, Weber, Weiss, White, Williams, Wilson, Winter, Wolf, Wood,
Wójcik, Wright, Wu, Yamada, Yang, Yilmaz, Young, Yusuf, Zhang, Zhao, Zhou, Ziegler, Zimmermann
""")
CITIES = listed("""
Aarhus, Aberdeen, Abidjan, Abu Dhabi, Accra, Addis Ababa, Adelaide, Albany, Algiers, Almaty, Amman,
Amsterdam, Ankara, Antwerp, Arequipa, Athens, Atlanta, Auckland, Baghdad, Baku, Baltimore, Bamako,
Bangkok, Barcelona, Bari, Basel, Bath, Beijing, Beirut, Belfast, Belgrade, Berlin, Bern, Bilbao,
Birmingham, Bogotá, Bologna, Bonn, Bordeaux, Boston, Brasília, Bratislava, Bremen, Brighton,
Brisbane, Bristol, Brno, Brussels, Bucharest, Budapest, Buenos Aires, Buffalo, Cairo, Calgary,
Cambridge, Canberra, Cancún, Cape Town, Caracas, Cardiff, Casablanca, Cebu, Charlotte, Chennai,
Chicago, Christchurch, Cleveland, Cologne, Colombo, Columbus, Copenhagen, Córdoba, Cork, Curitiba,
Dakar, Dallas, Damascus, Dar es Salaam, Darwin, Denver, Detroit, Dhaka, Doha, Dortmund, Dresden,
Dubai, Dublin, Durban, Düsseldorf, Edinburgh, Edmonton, Eindhoven, El Paso, Essen, Frankfurt,
Fukuoka, Galway, Gdańsk, Genoa, Ghent, Glasgow, Gothenburg, Granada, Graz, Grenoble, Guadalajara,
Guangzhou, Guatemala City, Hague, Haifa, Halifax, Hanoi, Hanover, Harare, Havana, Heidelberg,
Helsinki, Ho Chi Minh City, Hobart, Hong Kong, Honolulu, Hyderabad, Incheon, Indianapolis,
Innsbruck, Islamabad, Istanbul, Izmir, Jaipur, Jerusalem, Johannesburg, Kabul, Kampala, Kansas City,
Karachi, Kathmandu, Kigali, Kingston, Kobe, Kolkata, Kraków, Kuala Lumpur, Kuwait City, Kyiv, La
Paz, Lagos, Lahore, Las Vegas, Lausanne, Leeds, Leicester, Leipzig, Lille, Lima, Limerick, Linz,
Lisbon, Liverpool, Ljubljana, London, Los Angeles, Luanda, Lucerne, Lusaka, Luxembourg, Maastricht,
Madison, Madrid, Malaga, Málaga, Malmö, Manchester, Manila, Mannheim, Maputo, Marrakesh, Marseille,
Medellín, Melbourne, Memphis, Mexico City, Miami, Milan, Milwaukee, Minneapolis, Mombasa, Monterrey,
Montevideo, Montreal, Moscow, Mumbai, Muscat, Nagoya, Nairobi, Nantes, Naples, Nashville, New
Orleans, New York, Newcastle, Nicosia, Nottingham, Nuremberg, Oakland, Odense, Oklahoma City,
Orlando, Oslo, Ottawa, Oxford, Padua, Palermo, Panama City, Paris, Philadelphia, Phoenix, Pisa,
Pittsburgh, Plovdiv, Portland, Poznań, Prague, Pretoria, Pune, Quebec, Rabat, Reykjavík, Riga, Rio
de Janeiro, Riyadh, Rome, Rosario, Rostock, Rotterdam, Sacramento, Salt Lake City, Salzburg, San
Antonio, San Diego, San Francisco, San José, Santa Fe, Santiago, São Paulo, Sapporo, Sarajevo,
Seattle, Seoul, Seville, Shanghai, Sheffield, Shenzhen, Singapore, Skopje, Southampton, Split, St.
Louis, Strasbourg, Stuttgart, Surabaya, Sydney, Taipei, Tallinn, Tampa, Tampere, Tangier, Tashkent,
Tbilisi, Tehran, Tel Aviv, Thessaloniki, Tirana, Tokyo, Toronto, Toulouse, Trieste, Tripoli,
Trondheim, Tucson, Tunis, Turin, Utrecht, Valparaíso, Venice, Verona, Vienna, Vilnius, Warsaw,
Washington, Wellington, Windhoek, Winnipeg, Wrocław, Wuhan, Yangon, Yerevan, Yokohama, York, Zagreb,
Zaragoza, Zürich, Zurich
""")
COUNTRIES = listed("""
Argentina, Australia, Austria, Belgium, Brazil, Canada, Chile, China, Colombia, Croatia, Denmark,
Egypt, Estonia, France, Germany, Ghana, Greece, Hungary, India, Ireland, Israel, Italy, Kenya,
Malaysia, Mexico, Morocco, New Zealand, Nigeria, Norway, Peru, Philippines, Poland, Romania,
Senegal, Singapore, Slovenia, South Africa, South Korea, Spain, Switzerland, Thailand, Tunisia,
Turkey, Ukraine, United Kingdom, United States, Vietnam
""")
GOODS = listed("""
air filter, alarm clock, anchor, apron, armchair, axe, backpack, badge, balloon, bandage, banner,
barrel of oil, baseball bat, basket, bath towel, bathrobe, battery, bean bag, bell, belt, bench,
bicycle, binder, blanket, blender, board game, bolt, book, bookcase, boot, bottle of olive oil,
bottle of water, bottle of wine, bow tie, bowl, box of tea, box of screws, bracelet, brake pad,
brick, broom, brush, bucket, bulb, bunk bed, button, cabinet, cable, camera, camping stove, candle,
canoe, canvas, can of soup, cap, carafe, carton of milk, case of beer, cello, chair, chessboard,
chisel, cleaning cloth, clipboard, clock, coat, coat hanger, coaster, coffee machine, coffee mug,
coffee table, comb, compass, computer mouse, cookbook, cooler, cot, crate of apples, crowbar, cup,
cupboard, curtain, cushion, cutting board, dartboard, deck chair, desk, desk lamp, dictionary, dish
rack, dishwasher, doll, doorbell, doormat, drawer, dress, drill bit, drinking glass, drone, drum,
drum of oil, dumbbell, dustbin, duvet, earring, easel, eggcup, electric kettle, elliptical trainer,
engine, envelope, eraser, espresso cup, extension cord, face mask, fan, faucet, fence post, file
folder, fire extinguisher, first aid kit, fishing rod, flag, flashlight, flask, floor lamp,
flowerpot, flute, folding table, football, fork, frame, freezer, fridge, frying pan, fuse, game
console, garden hose, headset, gas mask, generator, globe, glue stick, graphics card, greenhouse,
grill, hairbrush, hair dryer, hammer, hammock, handbag, hard hat, hat, heat pump, helmet,
highlighter, hinge, hoodie, hook, hotplate, ink cartridge, iron, ironing board, jacket, jar of jam,
jar of mustard, jigsaw, jug, juicer, kettle, key ring, keyboard, kite, lab stool, ladder, ladle,
lamp, lampshade, lantern, laptop, laptop stand, lawn mower, leather sofa, lens, letter opener,
lightbulb, lock, loudspeaker, lunch box, magazine, magnet, mailbox, marker, mattress, measuring cup,
measuring tape, medal, memory card, metal shelf, microphone, microscope, mixer, mobile phone,
monitor, mop, motor, mouse pad, mug, music stand, nail, napkin, necklace, needle, network switch,
notebook, notepad, oar, office chair, oven, pack of gum, pack of batteries, packet of seeds,
padlock, paint brush, painting, pallet of bricks, paper clip, paper towel, parasol, pen, pencil,
pencil case, pepper mill, perfume, phone case, piano, pick, picture frame, pillow, pipe, pizza oven,
plank, plate, plug, poster, postcard, pot, pot of paint, power bank, power drill, power strip,
pressure cooker, printer, projector, propane tank, pump, puppet, puzzle, quilt, racket, radiator,
radio, rain jacket, rake, raincoat, razor, receiver, refrigerator, remote control, rice cooker, ring
binder, road bike, robe, rocking chair, roll of tape, roll of fabric, rope, router, rubber stamp,
rug, ruler, running shoe, sack of rice, bag of cement, bag of coffee, saddle, safety vest, salad
bowl, sandbag, saucepan, saw, saxophone, scale, scanner, scarf, school bag, scooter, screen,
screwdriver, seat, server rack, set of cutlery, sewing machine, shelf, shield, shirt, shovel, shower
curtain, sieve, sign, sink, skateboard, sketchbook, ski, sleeping bag, sleeping mat, slow cooker,
smartphone, smoke detector, snorkel, snowboard, sock, sofa, solar panel, spade, spanner, spare tyre,
spark plug, speaker, spice rack, sponge, spoon, spool of wire, spray bottle, stapler, statue, steel
beam, stepladder, sticker, stool, stopwatch, stove, straw hat, stroller, suitcase, sun hat,
sunshade, sweater, swimsuit, swing, switch, syringe, T-shirt, table, table lamp, table tennis table,
tablecloth, tablet, tea cup, tea pot, teddy bear, telescope, tennis ball, tent, test tube,
thermometer, thermos flask, tie, tile, timer, tin of tuna, toaster, toilet seat, toothbrush, torch,
towel, toy car, tractor, trampoline, tray, tree, tripod, trolley, trumpet, tube of glue, tyre,
typewriter, ukulele, umbrella, uniform, USB cable, USB stick, vacuum cleaner, van, ventilator, vinyl
record, wall clock, wallet, wardrobe, washing machine, watch, water bottle, watering can, webcam,
welding mask, wheel, wheelbarrow, wheelchair, whistle, whiteboard, window, wine glass, wineglass,
wok, wool sock, wrench, wristband, yoga mat, zip tie
""")
PLURAL_GOODS = listed("""
binoculars, cherries, clothes, coffee beans, earplugs, eggs, gloves, goggles, headphones, jeans,
leggings, lentils, mittens, onions, oranges, pliers, potatoes, pyjamas, shorts, slippers, stairs,
tea leaves, tomatoes, trousers, tweezers, wooden planks, work gloves
""")

HELD_OUT_FIRST_NAMES = listed("""
Jonas, Amara, Stefan, Priya, Lucia, Oscar, Mei, Tomas, Freya, Abdul, Robert, Sofia, Daniel, Laura,
Kenji, Isabel, Martin, Nina, Patrick, Helena, Beata, Cormac, Dilip, Eszter, Gilberto, Hélène, Jamal,
Kirsten, Leticia, Mariam, Nelson, Orla, Rasmus, Soraya, Tobias, Uche, Vivian, Wolfgang, Yolanda,
Zdeněk
""")
HELD_OUT_LAST_NAMES = listed("""
Dubois, Okonkwo, Brandt, Patel, Fernandez, Lindgren, Wong, Horvat, Olsen, Rahman, Johnson, Morales,
Krause, Lefevre, Kim, Nowak, Walker, Hansen, Ricci, Alizadeh, Barker, Contreras, D'Angelo, Ekström,
Fraser, Grünwald, Hakimi, Ishikawa, Jovanović, Kiplagat, Lovell, Mazur, Ndiaye, Orlov, Peña, Rehman,
Sandoval, Thorne, Van Houten, Whitaker
""")
HELD_OUT_CITIES = listed("""
Osaka, Hamburg, Porto, Nice, Jakarta, Austin, Krakow, Geneva, Bergen, Quito, Munich, Valencia, Lyon,
Florence, Stockholm, Kyoto, Delhi, Houston, Vancouver, Perth, Asunción, Bordertown, Cuenca, Dunedin,
Exeter, Fargo, Groningen, Łódź, Monaco, Norwich, Port Louis, Rennes, San Juan, Tromsø, Uppsala,
Varna
""")
HELD_OUT_COUNTRIES = listed("""
Japan, Portugal, Sweden, Indonesia, Ecuador, Netherlands, Finland, Uruguay, Czechia, Iceland
""")
HELD_OUT_GOODS = listed("""
violin, microwave, wooden table, drum of paint, hard drive, toolbox, surfboard, lab coat, jar of
honey, guitar, ceiling fan, garden chair, box of chocolate, mirror, carpet, bottle of shampoo,
electric heater, door handle, safety boot, vase, calculator, bag of flour, harmonica, rowing boat,
wall calendar, cheese grater, leather glove, barcode scanner, rubber duck, bird house, sack of coal,
tin of sardines, travel adapter, shoe rack, water pump, ceramic tile
""")
HELD_OUT_PLURAL_GOODS = listed("sunglasses, scissors, lemons, hiking trousers")
HELD_OUT = frozenset(
    " ".join(
        [
            *HELD_OUT_FIRST_NAMES,
            *HELD_OUT_LAST_NAMES,
            *HELD_OUT_CITIES,
            *HELD_OUT_COUNTRIES,
            *HELD_OUT_GOODS,
            *map(plural, HELD_OUT_GOODS),
            *HELD_OUT_PLURAL_GOODS,
        ]
    )
    .lower()
    .split()
)
"""All held-out words in lower case. Generators of made-up words avoid them."""
