"""Topics of sentiment statements. Each topic has subjects, and predicates for each label."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """Subjects of statements, and predicates by label. Every predicate fits every subject."""

    subjects: tuple[str, ...]
    predicates: dict[str, tuple[str, ...]]


def _topic(subjects: str, *, positive: str, negative: str, neutral: str) -> Topic:
    predicates = {"positive": positive, "negative": negative, "neutral": neutral}
    return Topic(_split(subjects), {label: _split(text) for label, text in predicates.items()})


def _split(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


TOPICS = (
    _topic(
        """
        the soup | the pasta | my steak | the pizza | the dessert | the curry | the breakfast
        | the coffee | the bread | the sushi | the burger | the salad | the wine | the chicken
        """,
        positive="""
            was delicious | tasted wonderful | was cooked to perfection | was full of flavour
            | was the best I have had in years | was fresh and tasty | was worth every penny
            | made my day | was absolutely lovely | could not have been better | was not bad at all
            | was so good that we ordered it twice
        """,
        negative="""
            was cold | tasted of nothing | was burnt | made me ill | was bland and overpriced
            | had a hair in it | was dry and tough | was a big disappointment | smelled off
            | was not fresh | was barely edible | was far too salty
            | went straight back to the kitchen
        """,
        neutral="""
            comes with rice | was served in a white bowl | costs nine euros | is on the lunch menu
            | is made with local flour | takes twenty minutes | was okay | was average
            | is available on weekdays | contains nuts
        """,
    ),
    _topic(
        """
        the staff | our waiter | the receptionist | the driver | customer support | the manager
        | the cashier | the technician | the woman on the phone | the support team
        | the shop assistant
        """,
        positive="""
            was friendly and quick | went out of the way to help | answered every question patiently
            | was a delight to deal with | solved my problem in minutes | could not have been kinder
            | was polite and professional | made us feel welcome | deserves a raise
            | was never in a bad mood | was extremely helpful | remembered our names
        """,
        negative="""
            was rude | ignored us | never called back | hung up on me | was of no help at all
            | kept us waiting for an hour | did not care | lied to my face | was unfriendly and slow
            | rolled her eyes at us | could not answer a single question | shouted at my son
            | was never available | treated us like dirt
        """,
        neutral="""
            wears a blue uniform | works until six | asked for my order number
            | speaks English and French | took our names | is at the desk on the left
            | answered on Tuesday | sent a form to fill in | will call again tomorrow
        """,
    ),
    _topic(
        """
        the room | our hotel | the flat | the bathroom | the apartment | the campsite | the bed
        | the holiday home | the guest house | the hostel
        """,
        positive="""
            was spotless | had a stunning view | was cosy and quiet
            | was even nicer than in the pictures | felt like home | was very comfortable
            | was a real gem | left nothing to be desired | was clean and spacious
            | was perfect for our family | is the best place we ever stayed at
        """,
        negative="""
            was filthy | smelled of smoke | was far too noisy to sleep | had mould on the walls
            | was nothing like the pictures | was freezing | was full of ants
            | is not worth the price | was a nightmare | had no hot water | was cramped and dark
            | ruined our holiday
        """,
        neutral="""
            is on the second floor | has two windows | is near the station
            | has space for four people | was booked for three nights | is paid on arrival
            | can be cancelled until Friday | was fine, nothing more | is next to a supermarket
            | has a small desk
        """,
    ),
    _topic(
        """
        the phone | this laptop | my new headphones | the camera | the printer
        | the vacuum cleaner | the washing machine | this speaker | the tablet | the kettle
        | the watch | the screen | the battery | the television | this drill
        """,
        positive="""
            works like a charm | is excellent | exceeded my expectations | is a joy to use
            | does exactly what it should | is great value for money | has never let me down
            | is the best I have ever owned | runs fast and quietly | is beautifully made
            | still works perfectly after years | is easy to use and reliable | impressed everyone
        """,
        negative="""
            stopped working after a week | is a waste of money | broke on the first day
            | keeps crashing | arrived with a crack | does not hold a charge | is painfully slow
            | feels cheap | never worked properly | overheats all the time | is useless
            | let me down | is not worth half the price | makes a terrible noise
        """,
        neutral="""
            weighs two kilos | comes in three colours | has a two-year warranty
            | was released in May | needs four batteries | is sold in most shops | is made in Korea
            | has a USB port | is average | is neither good nor bad | does its job, nothing special
        """,
    ),
    _topic(
        """
        the app | this software | the website | the game | the update | the new version
        | the program | the online shop | the checkout | the login
        """,
        positive="""
            is intuitive and fast | saves me hours every week | is brilliant | just works
            | is a huge improvement | is a pleasure to use | is beautifully designed
            | made my life easier | never crashes | is addictive in the best way | is a must-have
        """,
        negative="""
            crashes constantly | lost all my data | is full of bugs | is a confusing mess
            | does not load | is impossible to use | made everything worse | drains my battery
            | is full of annoying ads | logs me out every five minutes | is unbearably slow
            | charged me twice
        """,
        neutral="""
            was updated on Monday | is available in ten languages | needs 200 megabytes
            | asks for an email address | runs on Linux | has a dark mode | can be downloaded here
            | stores files in a folder | is okay
        """,
    ),
    _topic(
        """
        the film | the movie | the series | the documentary | the play | the concert | the show
        | the second season | the ending | the acting
        """,
        positive="""
            was a masterpiece | moved me to tears | kept me on the edge of my seat | was hilarious
            | was brilliant from start to finish | is a must-see | was wonderful | was breathtaking
            | deserves every award | was never boring | made me smile for days
        """,
        negative="""
            was boring | put me to sleep | was a waste of two hours | made no sense
            | was painfully predictable | was awful | is the worst I have seen this year
            | was a letdown | was not funny at all | was so bad that we left early
            | fell completely flat
        """,
        neutral="""
            lasts two hours | was shot in Iceland | is based on a novel | starts at eight
            | has four episodes | is set in the 1920s | was shown on Channel 4 | was so-so
            | comes out in October | is in French with subtitles
        """,
    ),
    _topic(
        """
        the book | this novel | the first chapter | the author's new story | the magazine
        | the article | the biography | the cookbook | the plot
        """,
        positive="""
            is beautifully written | was impossible to put down | is a treasure | taught me a lot
            | is inspiring | is a wonderful read | is witty and wise | deserves a wide audience
            | was a delight | kept me up all night, in a good way
        """,
        negative="""
            is badly written | bored me to death | is full of mistakes | was a slog
            | is shallow and dull | was not worth my time | is a mess | disappointed me
            | goes nowhere | should never have been published | is unreadable
        """,
        neutral="""
            has 300 pages | was published in 1998 | is about a lighthouse keeper
            | costs twelve euros | comes as a paperback | was translated from Polish
            | is in the library | has eleven chapters | is neither gripping nor dull
        """,
    ),
    _topic(
        """
        the delivery | the parcel | my order | the package | the shipment | the replacement
        | the courier | the post
        """,
        positive="""
            came a day early | arrived in perfect condition | was super fast | was packed with care
            | went without a hitch | arrived sooner than promised | was quick and free
            | came right on time, wonderful
        """,
        negative="""
            never arrived | came three weeks late | was left in the rain | arrived broken
            | went to the wrong address | was lost, and nobody cares | is late again
            | was incomplete | arrived in pieces | took forever
        """,
        neutral="""
            is due on Thursday | was sent yesterday | is at the post office | weighs five kilos
            | has a tracking number | needs a signature | was dropped off at noon
            | contains two boxes | will be sent to the office
        """,
    ),
    _topic(
        """
        the jacket | these shoes | the dress | the sweater | the jeans | the fabric | the shirt
        | the backpack | the sofa | the mattress | the table
        """,
        positive="""
            fits perfectly | looks even better in real life | is so comfortable
            | is of great quality | gets me compliments every day | is worth every cent
            | feels wonderful | has become my favourite | is sturdy and beautiful
            | still looks like new
        """,
        negative="""
            fell apart after one wash | is itchy and thin | looks cheap | tore on the second day
            | is uncomfortable | is not what I ordered | smells of chemicals | faded at once
            | hurts my back | is a bad copy of the picture | was a total waste
        """,
        neutral="""
            is made of cotton | comes in size M | is dark blue | can be washed at 30 degrees
            | has two pockets | is 80 cm wide | is from the spring collection | was bought in March
            | is all right
        """,
    ),
    _topic(
        """
        the flight | the train | the bus | the taxi ride | the ferry | the car | the journey
        | the airline | the rental car
        """,
        positive="""
            was smooth and on time | was very comfortable | was a pleasure | was clean and cheap
            | was the best I ever had | made travelling easy | was quick and relaxing
            | never lets us down
        """,
        negative="""
            was delayed by six hours | was cancelled without notice | was dirty | was overcrowded
            | broke down on the motorway | lost our luggage | was a horrible experience
            | was overbooked again | cost us our connection | was hot, loud and late
        """,
        neutral="""
            leaves from platform 4 | takes three hours | runs every half hour | stops in Basel
            | has 50 seats | goes via Munich | departs at noon | was on Sunday
            | is operated by another company
        """,
    ),
    _topic(
        """
        the course | the teacher | the workshop | the lecture | the school | the training
        | the museum | the exhibition | the tour | our guide
        """,
        positive="""
            was fascinating | was worth the trip | explained everything clearly | was inspiring
            | was great fun for the kids | taught us so much | was excellent | was a highlight
            | could not have been more interesting
        """,
        negative="""
            was a waste of time | was badly organised | was dull | taught us nothing
            | was overpriced | was poorly prepared | was chaotic | did not keep what was promised
            | made us regret coming | left everybody frustrated
        """,
        neutral="""
            starts in September | takes place on Mondays | has twelve lessons | is closed on Sundays
            | is held in room 3 | costs eight euros | ends at noon | needs a reservation
            | covers three topics
        """,
    ),
    _topic(
        """
        the park | the beach | the neighbourhood | the city | the restaurant | the pool
        | the gym | the market | the café | the weather
        """,
        positive="""
            was gorgeous | is lovely at any time of day | is my favourite place | was magical
            | is clean and peaceful | made us want to stay forever | is charming | was fantastic
            | is always a treat
        """,
        negative="""
            was disgusting | is dirty and loud | was a disaster | is full of rubbish
            | is dangerous at night | was miserable | is the worst in the country | spoiled our day
            | was awful all week
        """,
        neutral="""
            is in the north | is open to the public | is two kilometres from here | opens at nine
            | has a car park | is near the river | will change on Tuesday | is marked on the map
            | has about forty places
        """,
    ),
    _topic(
        """
        the bank | my insurance | the dentist | the clinic | the internet provider
        | the landlord | the garage | the plumber | the company | the agency
        """,
        positive="""
            handled everything quickly | is trustworthy and fair | gave excellent advice
            | kept every promise | charges fair prices | did an outstanding job
            | is the best in town | took great care of us | has my full trust
            | earned a customer for life
        """,
        negative="""
            charged hidden fees | refuses to refund me | did a sloppy job | is a scam
            | made everything worse | ignores my letters | cannot be trusted | overcharged us badly
            | never keeps appointments | cheated my mother | left a mess behind
        """,
        neutral="""
            is open until five | moved to Park Street | has 20 employees | sends bills by email
            | was founded in 1987 | changed its logo | needs a copy of my passport
            | is on the ground floor | offers two tariffs
        """,
    ),
)
VERDICTS = {
    "positive": _split(
        """
            I love it | we loved it | I would buy it again | highly recommended | I am very happy
            | we will be back | five stars | I could not be happier | it was a wonderful experience
            | thank you so much | I am impressed | it made my week | I have no complaints
            | I was not disappointed | there is nothing to criticise | I can only recommend it
            | best decision ever | what a pleasant surprise | I am a fan | we enjoyed every minute
            | it never fails to make me smile | nothing could be better | great job | well done
            | I was wrong to doubt it | it is not cheap, but worth it | that made me really happy
            | we had so much fun | simply amazing | perfect | I cannot praise it enough
            | so glad I came
        """
    ),
    "negative": _split(
        """
            I hate it | we hated it | never again | I want my money back | I would not recommend it
            | avoid at all costs | I am very disappointed | one star | it was a terrible experience
            | what a waste of money | I regret buying it | we will not be back | it is not good
            | it did not work for me | I expected much more | worst purchase ever | do not buy it
            | I am not happy with it | not worth it | it makes me angry | I am fed up | stay away
            | it was anything but good | I have rarely been so annoyed | unacceptable | shame on you
            | it is not what it used to be | no one should have to put up with this | I returned it
            | so frustrating | simply horrible | I am sick of it
        """
    ),
    "neutral": _split(
        """
            it was okay | it is average | nothing special | it is neither good nor bad
            | I have no strong opinion | it is what you would expect | it does what it says, no more
            | I have not used it yet | time will tell | I don't mind either way | so-so
            | it could be better, it could be worse | it is fine, I guess
            | I do not have a preference | I have not decided yet | it is like all the others
            | middle of the road | three out of five
        """
    ),
}
QUESTIONS = _split(
    """
        When does the shop open? | Where is the nearest bus stop? | How much is a ticket to Graz?
        | What colour is the cover? | Can I pay by card? | Is breakfast included?
        | Which size do you have? | Who is the author? | Do you ship to Norway?
        | How long does the battery take to charge? | What time is it in Tokyo? | Is there a lift?
        | Does it come with a cable? | Where can I park? | How do I change my password?
        | Which platform does the train leave from? | Is the museum open today?
        | Could you send me the invoice? | What is the difference between the two models?
        | How many people can sit at the table?
    """
)
FACTS = _split(
    """
        The meeting is at three o'clock. | Water boils at 100 degrees.
        | I bought two tickets for Saturday. | The report has twelve pages.
        | She lives on the third floor. | The new bridge was opened in 2019.
        | We drove from Lyon to Paris. | The office moved to Main Street.
        | He ordered a coffee and a sandwich. | My brother works in a bakery.
        | The package weighs three kilos. | There are seven days in a week.
        | The library closes at six. | I turned the lamp on and read the letter. | The bus was blue.
        | Please find the invoice attached. | The keys are on the table.
        | My appointment is on 4 March. | It will be cloudy tomorrow.
        | The company employs 300 people. | I ordered the grey one in size L.
        | The manual is available in German. | We met at the station at noon.
        | The shop sells bread and milk. | Yesterday I went to the supermarket.
        | The software is written in Python. | They have two children. | The price includes tax.
        | I am waiting for the second part. | The file was saved on Friday.
        | This model replaces the one from last year. | The train leaves at 7:45 from platform 2.
    """
)
MOODS = {
    "positive": _split(
        """
            What a beautiful day! | I got the job, I am over the moon!
            | Thanks to you, my trip was perfect. | My daughter laughs every time she plays with it.
            | Finally a shop that keeps its word. | I can't stop smiling.
            | This is the kindest thing anyone has done for me.
            | Our team won and we celebrated all night. | I feel so much better since I started.
            | You have made an old man very happy. | Everything went better than I had hoped.
            | I have recommended it to all my friends. | It has never been easier to cook at home.
            | We have been customers for ten years and never regretted it.
            | I look forward to every single lesson.
            | Who would have thought that cleaning can be fun?
            | You won't find anything better for this price. | No other restaurant comes close.
            | I didn't expect much, but it blew me away.
            | The problem was solved within an hour, fantastic.
            | I wish every company were like this. | A true work of art.
            | It is hard to find anything wrong with it. | Couldn't ask for more.
            | Not a single bad moment. | Worth the wait! | I'd give it six stars if I could.
        """
    ),
    "negative": _split(
        """
            What a horrible day. | I lost my job and I feel terrible.
            | Because of you we missed our flight. | My son cried when it broke.
            | Another broken promise from this shop. | I could scream.
            | This is the rudest thing anyone has said to me.
            | Our team lost and everybody is upset. | I feel worse since I started.
            | You have ruined my birthday. | Everything that could go wrong did.
            | I have warned all my friends about it. | Two hours in the queue for nothing.
            | I have been a customer for ten years and this was the last time.
            | I dread every single lesson. | Who thought that this was a good idea?
            | You can find better for half the price. | It looked great online, but it is junk.
            | I expected quality and got rubbish. | Nobody answers my emails.
            | I wish I had read the reviews before. | An insult to the audience.
            | It is hard to find anything good about it. | Couldn't be worse.
            | Not a single good moment. | Don't bother. | I'd give it zero stars if I could.
            | It stopped raining only when we left. | I still haven't got my refund.
            | My money is gone and so is the seller.
        """
    ),
    "neutral": FACTS + QUESTIONS,
}
