"""Questions about customers. Phrases after a double bar are held out."""

from ops.demo.sql.grammar import question

CUSTOMERS = (
    question(
        "c.name",
        """
        List the {things}. | Show all {things}. | Which {those}? | Which {those}?
        | Who are the {things}? | List the names of all {things}. | Give me the {things}.
        | Find all {things}. | {things} || Show me the {things}.
        | What are the names of the {things}? | Please list all {things}.
        """,
    ),
    question(
        "COUNT(*)",
        """
        How many {those}? | How many {those}? | How many {things} are there?
        | Count the {things}. | What is the number of {things}?
        | How many {things} do we have? | number of {things} | Tell me the number of {things}.
        | I want to know how many {those}. | Please count the {things}.
        | What is the total of {things}? || Tell me how many {those}.
        | Can you count the {things}? | What is the total number of {things}?
        """,
    ),
    question(
        "COUNT(DISTINCT c.city)",
        """
        How many different cities do {things} live in?
        | In how many cities do we have {things}? | Count the distinct cities of {things}.
        | How many different cities are the {things} from?
        | What is the number of different cities of {things}?
        || How many different cities do the {things} come from?
        """,
    ),
    question(
        "DISTINCT c.city",
        """
        Which cities do {things} live in? | List the cities where we have {things}.
        | In which cities are our {things}? | Show the different cities of {things}.
        | What cities are our {things} from? | From which cities do our {things} come?
        || What cities do our {things} come from?
        """,
    ),
    question(
        "DISTINCT c.country",
        """
        Which countries do our customers come from?
        | List all countries where we have customers.
        | In which countries do customers live? || What countries are our customers from?
        """,
    ),
    question(
        "c.city, COUNT(*)",
        """
        How many {things} are there in each city? | Count the {things} per city.
        | Number of {things} by city. | Show the number of {things} for every city.
        | For each city, how many {things} are there?
        | Show each city with its number of {things}.
        || How many {things} does each city have?
        """,
        "GROUP BY c.city",
    ),
    question(
        "c.country, COUNT(*)",
        """
        How many customers are there in each country? | Count the customers per country.
        | Number of customers by country. | Show the number of customers for every country.
        | For each country, how many customers are there?
        | Show each country with its number of customers.
        || How many customers does each country have?
        """,
        "GROUP BY c.country",
    ),
    question(
        "c.city",
        """
        Which city has the most customers? | In which city do most customers live?
        | Name the city with the most customers.
        | What is the city with the most customers?
        | Which city has the highest number of customers?
        || What city has the largest number of customers?
        """,
        "GROUP BY c.city ORDER BY COUNT(*) DESC LIMIT 1",
    ),
    question(
        "c.country",
        """
        Which country has the most customers? | In which country do most customers live?
        | Name the country with the most customers.
        | What is the country with the most customers?
        | Which country has the highest number of customers?
        || What country has the largest number of customers?
        """,
        "GROUP BY c.country ORDER BY COUNT(*) DESC LIMIT 1",
    ),
    question(
        "c.city",
        """
        Which cities have more than {few} customers?
        | List the cities with more than {few} customers.
        | In which cities do we have over {few} customers?
        | Which cities have over {few} customers?
        | Find the cities in which more than {few} customers live.
        || Show cities that have more than {few} customers.
        """,
        "GROUP BY c.city HAVING COUNT(*) > {few_n}",
    ),
    question(
        "c.name",
        """
        List the {things} in alphabetical order. | Show the {things} sorted by name.
        | {things}, ordered by name | List the {things} from A to Z.
        | Sort the {things} by name. | Order the {things} alphabetically.
        | Put the {things} in alphabetical order. || Give me the {things} alphabetically.
        """,
        "ORDER BY c.name",
    ),
    question(
        "c.name",
        """
        Which {things} have never ordered anything? | List {things} without any orders.
        | Show the {things} who never placed an order. | Find {things} with no orders.
        | Which {things} have no orders yet? | What {things} have never placed an order?
        || Which {things} have not ordered anything yet?
        """,
        where="c.id NOT IN (SELECT customer_id FROM orders)",
    ),
    question(
        "c.city",
        """
        Where does {name} live? | In which city does {name} live?
        | What is the city of {name}? | Which city is {name} from?
        || What city does {name} live in?
        """,
        where="c.name = '{name}'",
    ),
    question(
        "c.country",
        """
        Which country is {name} from? | In which country does {name} live?
        | What is the country of {name}? || What country does {name} live in?
        """,
        where="c.name = '{name}'",
    ),
)
