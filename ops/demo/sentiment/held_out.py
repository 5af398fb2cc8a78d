"""Held-out statements. They are not generated from templates, and share no topics with training."""

STATEMENTS = {
    "positive": """
        My hair has never looked this good, the stylist is a genius.
        The podcast keeps me company on every run and I always learn something.
        Our puppy adores this chew bone.
        I was sceptical at first, but this lawn seed turned our yard into a green carpet.
        The nurses on ward seven were angels.
        Assembly took ten minutes and the wardrobe looks fabulous.
        After years of back pain I can finally sleep through the night.
        The raclette evening was a blast!
        These running socks have saved me from blisters on two marathons.
        Kudos to the night porter who found my lost ring.
        My grandmother figured out the tablet by herself, which says it all.
        The harvest festival exceeded all our hopes.
        Best haircut I've had since I moved here.
        The ending gave me goosebumps.
        Cheap as chips and it outperforms my old one by miles.
        I keep coming back for the almond croissants.
        The vet treated our cat with so much tenderness.
        Sturdy, light and gorgeous: exactly the bicycle I dreamed of.
        They replaced the broken handle free of charge, no questions asked.
        My students beg me to play this quiz every Friday.
        The new bus line is a blessing for our village.
        I laughed so hard that my cheeks hurt.
        Not once in five years has this boiler given us trouble.
        The view from the summit made every step worthwhile.
        What a bargain, I'm thrilled.
        The orchestra played with such passion that the hall stood up and cheered.
        This sunscreen doesn't sting my eyes, hooray!
        Thanks for the speedy refund, you restored my faith in online shopping.
        The tomatoes from this stall taste like those of my childhood.
        It took a while to arrive, but the quality is outstanding.
        The interface looks dated, yet I wouldn't trade this tool for any other.
        A few pages drag, but on the whole it is a gripping and moving memoir.
        Parking was a pain, still we had a marvellous evening.
        Despite the rain, the wedding was a dream.
        It's pricey, but I'd pay double for this comfort.
        The kids slept like logs in the bunk beds and didn't want to leave.
        Smart, warm and funny, she is the best boss I have worked for.
        You guys rock!
        I can't imagine my kitchen without this mixer any more.
        The physiotherapist got me back on my feet in a month.
        Super soft towels, they feel like a hotel.
        My plants are thriving since I switched to this soil.
        Flawless service from the first call to the final handshake.
        The choir sang like heaven.
        I passed my driving test thanks to this patient instructor.
        Everything about this lodge whispers comfort.
        A refreshing lemonade, not too sweet, just right.
        The kindergarten teachers are patient and full of ideas, our boy can't wait to go.
        This glue holds anything, even my broken heel. Love the stuff.
        We were greeted with a smile and homemade cake.
        The insurance paid within two days, I was pleasantly surprised.
        I adore the scent of these candles.
        Our flight attendant cheered up the whole cabin.
        The electrician was punctual, tidy and charming.
        This knife glides through everything, it's a dream to cook with.
        It's rare to see craftsmanship like this nowadays.
        The colours of the print are vivid and rich, I framed it straight away.
        Hats off to the volunteers, the marathon was superbly organised.
        My headaches are gone since I wear these glasses.
        I have nothing but praise for this little bakery.
        The hearing aid gave me my social life back.
        The snow was powdery, the slopes empty, pure bliss.
        I'm so proud of how far our team has come.
        The tent kept us bone dry in a storm.
        Your newsletter is the highlight of my Monday.
        Setting up the router was a breeze.
        That goal in the last minute was pure joy.
        The repair café brought my old radio back to life, I'm delighted.
        This is by far the tastiest vegan cheese around.
        I'd choose this dentist over any other, zero pain and lots of humour.
    """,
    "negative": """
        My hair looks like straw after this treatment.
        The podcast has turned into one endless advert.
        Our puppy choked on a loose piece of this toy.
        I trusted the advert, and now my lawn is brown and dead.
        The nurse sighed whenever I rang for help.
        Half the screws were missing and the instructions are a joke.
        My back hurts more than before I bought this chair.
        The buffet looked tired and so did the people serving it.
        These socks had holes after one jog.
        The night porter pretended not to see us.
        My grandmother gave up on the tablet in tears.
        The harvest festival was a muddy mess with endless queues.
        He butchered my fringe and charged extra for it.
        The ending ruined three great seasons.
        You get what you pay for: garbage.
        I threw the croissants in the bin.
        The vet didn't even look at our cat.
        The bicycle wobbles, squeaks and scares me.
        They refused to replace the broken handle and blamed me for it.
        My students groan when they see this textbook.
        Since the bus line was cut, my mother is stuck at home.
        Not funny, not clever, just embarrassing.
        This boiler has let us freeze three winters in a row.
        The summit was hidden behind a construction site, so we climbed for nothing.
        What a rip-off.
        The violinist was out of tune and the hall was half asleep.
        This sunscreen burned my eyes and stained my shirt.
        Six emails and two months later I still have no refund.
        The tomatoes were mouldy at the bottom of the box.
        It arrived quickly, but the quality is dreadful.
        The interface is pretty, yet nothing behind it works.
        A promising start, but the rest of the memoir is tedious self-praise.
        The location is great, still we would never set foot in there again.
        Despite the sunshine, the wedding was a fiasco because of the caterer.
        It's cheap, but I'd rather have thrown the money out of the window.
        The kids were bored stiff and cried to go home.
        He is the most arrogant boss I have ever worked for.
        You people should be ashamed.
        The mixer sprayed batter all over my kitchen and then died.
        The physiotherapist made my knee worse.
        Scratchy towels that shed fluff everywhere.
        My plants withered within days of using this soil.
        From the first call to the last, nothing but excuses.
        The choir was painfully off key.
        The instructor yelled at me until I cried.
        The lodge reeks of damp and old frying fat.
        The lemonade was flat, warm and sickly sweet.
        The kindergarten keeps losing my boy's clothes and nobody apologises.
        This glue doesn't stick to anything except my fingers.
        We were greeted with a shrug and sent to a table by the toilets.
        The insurance found yet another excuse not to pay.
        The candles gave me a headache.
        The flight attendant spilled coffee on me and laughed.
        The electrician left bare wires behind. Dangerous!
        This knife couldn't cut butter.
        Shoddy workmanship, the drawer came off in my hand.
        The print is blurry and the colours are off, I sent it back.
        The marathon was so badly run that people fainted without water.
        My eyes burn whenever I wear these glasses.
        I have nothing good to say about this bakery.
        The hearing aid whistles so loudly that I leave it in the drawer.
        Brown slush instead of snow, and they still took the full price.
        I'm ashamed of how our team played.
        The tent leaked and we woke up soaked.
        Your newsletter is spam, let me unsubscribe!
        Setting up the router cost me a whole weekend and my patience.
        Losing in the last minute broke my heart.
        They promised to fix my old radio and returned it in worse shape.
        This vegan cheese tastes like cardboard.
        The dentist pulled the wrong tooth.
    """,
    "neutral": """
        The hairdresser on the corner takes walk-ins until four.
        The podcast has a new episode every second Thursday.
        Chew bones are in aisle nine.
        Lawn seed should be sown in April or September.
        Visiting hours on ward seven are from two to six.
        The wardrobe consists of twelve boards and forty screws.
        I have an appointment with the physiotherapist next week.
        Raclette is a dish of melted cheese.
        These socks are sold in packs of three.
        The porter's desk is staffed round the clock.
        My grandmother owns a tablet.
        The harvest festival is held on the last weekend of September.
        I had a haircut this morning.
        How does the story end?
        It costs as much as the previous one.
        The bakery sells croissants and rolls.
        The cat has to see the vet twice a year.
        Is this bicycle available in a smaller frame?
        The handle is attached with two bolts.
        The quiz has twenty questions.
        The new bus line connects the village with the hospital.
        I read about it in the newspaper.
        The boiler is in the cellar.
        The summit is 2,400 metres above sea level.
        The amount will be debited on the first of the month.
        The orchestra plays Brahms and Dvořák tonight.
        Sunscreen is listed under cosmetics.
        Refunds are paid to the account you used.
        These tomatoes were grown in a greenhouse.
        The parcel contains a lamp and a bulb.
        The menu can be shown in six languages.
        The memoir covers the years from 1950 to 1972.
        There is a car park opposite the theatre.
        The wedding will be in June, in a small town near Siena.
        The fee depends on the length of your stay.
        The bunk beds are two metres long.
        She has been head of department since 2015.
        You can reply to this message until Tuesday.
        The mixer has five speeds.
        Bring your health card to the first session.
        The towels measure 50 by 100 centimetres.
        Change the soil once a year.
        A call from the workshop is expected tomorrow.
        The choir rehearses in the town hall.
        A driving lesson lasts 45 minutes.
        The lodge can host thirty guests.
        The lemonade contains water, sugar and lemon juice.
        Kindergarten starts at half past eight.
        The glue needs an hour to dry.
        Tables can be booked online or by telephone.
        The insurance policy has a number with ten digits.
        Each candle burns for about five hours.
        The flight attendants distribute the forms before landing.
        The electrician will come between eight and ten.
        The knife has a blade of 15 centimetres.
        The drawer is made of pine.
        The print is delivered in a cardboard tube.
        About four thousand people signed up for the marathon.
        He wears glasses for reading.
        The bakery next door opens at six.
        The hearing aid runs on small round batteries.
        Snow is forecast for the weekend.
        The match ended one all.
        What is the weight of the tent?
        The newsletter is sent on Mondays.
        The router has four ports on the back.
        I haven't made up my mind about the new mayor.
        The radio was built in 1962.
        The hotel was decent, neither great nor terrible.
        It was an ordinary dentist visit, nothing to report.
    """,
}
