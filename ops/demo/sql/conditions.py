"""Conditions on rows, as SQL and as phrases. Phrases after a double bar are held out."""

from ops.demo.sql.grammar import condition

CONDITIONS = {
    "customers": (
        condition(
            "c.city = '{city}'",
            """
        in {city} | from {city} | who live in {city} | living in {city} | based in {city}
        | in the city of {city} | whose city is {city} | in our {city} area
        | who are at home in {city} || located in {city} | that are from {city}
        """,
            """
        live in {city} | come from {city} | are from {city} | are based in {city}
        | are at home in {city} | do we have in {city} || are in {city}
        """,
        ),
        condition(
            "c.country = '{country}'",
            """
        in {country} | from {country} | who live in {country} | living in {country}
        | based in {country} | whose country is {country} || located in {country}
        | that are from {country}
        """,
            """
        live in {country} | come from {country} | are from {country}
        | are based in {country} || are in {country}
        """,
        ),
        condition(
            "c.city <> '{city}'",
            """
        outside {city} | who do not live in {city} | not from {city}
        | who live anywhere but in {city} | not living in {city} || not based in {city}
            """,
            "do not live in {city} | are not from {city} | live outside {city}",
        ),
        condition(
            "c.city IN ('{city}', '{city2}')",
            "in {city} or {city2} | from {city} and {city2} | from {city} or {city2}",
            "live in {city} or {city2} | come from {city} or {city2}",
        ),
        condition(
            "c.name LIKE '{letter}%'",
            """
        whose name starts with {letter} | with a name that begins with {letter}
        | whose names start with {letter} | with names starting with {letter}
        | whose first letter is {letter} || whose names begin with {letter}
        """,
            "have a name starting with {letter}",
        ),
    ),
    "products": (
        condition(
            "p.category = '{category}'",
            """
        in the {category} category | in the category {category}
        | from the {category} category | of category {category} | from {category}
        | that belong to the {category} category | that belong to {category}
        | filed under {category} || belonging to the {category} category
        """,
            """
        are in the {category} category | belong to {category} | are in category {category}
        || belong to the {category} category
        """,
        ),
        condition(
            "p.price > {price}",
            """
        over {price} euros | that cost more than {price} | priced above {price}
        | above ${price} | costing more than {price} euros | more expensive than {price}
        | with a price over {price} | with a price above {price}
        | with prices over {price} | that are priced over {price}
        | sold for more than {price} euros | for over {price}
        || with a price greater than {price} | that cost over {price}
        """,
            """
        cost more than {price} | cost over {price} euros | are more expensive than {price}
        | cost more than ${price} | have a price above {price}
        | are sold for more than {price} | are priced above {price} || are priced over {price}
        """,
        ),
        condition(
            "p.price < {price}",
            """
        under {price} euros | that cost less than {price} | priced below {price}
        | below ${price} | cheaper than {price} | costing less than {price} euros
        | with a price below {price} | with a price under {price} | with prices under {price}
        | that are priced under {price} | sold for less than {price} euros | for under {price}
        || for less than {price}
        | that cost under {price}
        """,
            """
        cost less than {price} | cost under {price} euros | are cheaper than {price}
        | cost less than ${price} | have a price below {price}
        | are sold for less than {price} | are priced below {price}
        || are priced under {price}
        """,
        ),
        condition(
            "p.price BETWEEN {price} AND {price2}",
            """
        between {price} and {price2} euros | priced between {price} and {price2}
        | that cost between {price} and {price2} | with a price from {price} to {price2}
        | for between {price} and {price2} euros | costing from {price} to {price2}
        | that are priced from {price} to {price2} | sold for {price} to {price2} euros
        || costing between {price} and {price2}
        """,
            "cost between {price} and {price2} | cost from {price} to {price2} euros",
        ),
        condition(
            "p.stock = 0",
            """
        out of stock | that are out of stock | that are sold out | with no stock
        | not in stock | that we have sold out of | that we ran out of | we no longer have
        | that have run out | with none left || we have run out of
        """,
            """
        are out of stock | are sold out | are not in stock | have run out
        | do we no longer have || have no stock left
            """,
        ),
        condition(
            "p.stock > 0",
            """
        in stock | that are in stock | that are available | that we have in stock
        | that are not sold out | still in stock | now available || currently in stock
            """,
            """
        are in stock | are available | are still in stock | do we have in stock
        || can we still sell
            """,
        ),
        condition(
            "p.stock < {n}",
            """
        with fewer than {n} in stock | with less than {n} items left | with stock below {n}
        | with a stock under {n} | with fewer than {n} pieces left
        | of which fewer than {n} are left | with under {n} units in stock
        | that have less than {n} units || with fewer than {n} units left
        """,
            """
        have fewer than {n} in stock | have less than {n} left | have under {n} units left
        | have fewer than {n} pieces || have a stock below {n}
            """,
        ),
        condition(
            "p.stock > {n}",
            """
        with more than {n} in stock | with over {n} items left | with stock above {n}
        | with a stock over {n} | with more than {n} pieces left
        | of which more than {n} are left | with over {n} units in stock
        | that have more than {n} units || with more than {n} units left
        """,
            """
        have more than {n} in stock | have over {n} left | have over {n} units left
        | have more than {n} pieces || have a stock above {n}
            """,
        ),
    ),
    "orders": (
        condition(
            "c.name = '{name}'",
            """
        by {name} | placed by {name} | from {name} | of {name} | that {name} placed
        | from the customer {name} | which {name} made | sent in by {name}
        | that came from {name} || made by {name} | from customer {name}
        """,
            """
        were placed by {name} | come from {name} | did {name} place | were sent in by {name}
        | has {name} made || were made by {name}
            """,
        ),
        condition(
            "c.city = '{city}'",
            """
        from customers in {city} | by customers from {city} | from {city} | placed in {city}
        | of customers in {city} | by customers who live in {city}
        | of customers living in {city} | by people in {city}
        || of customers who live in {city}
        """,
            """
        came from {city} | were placed by customers in {city}
        || came from customers in {city}
        """,
        ),
        condition(
            "c.country = '{country}'",
            """
        from customers in {country} | by customers from {country} | from {country}
        | placed in {country} | of customers in {country}
        | by customers who live in {country} | of customers living in {country}
        | by people in {country} || of customers who live in {country}
        """,
            """
        came from {country} | were placed by customers in {country}
        || came from customers in {country}
        """,
        ),
        condition(
            "p.name = '{product}'",
            """
        of the {product} | for the {product} | of the product {product} | for a {product}
        | containing the {product} | that contain the {product}
        | in which the {product} was sold | with the {product} || that include the {product}
        """,
            """
        were for the {product} | include the {product} | had the {product} in them
        | were made for the {product} || contain the {product}
            """,
        ),
        condition(
            "p.category = '{category}'",
            """
        for {category} products | of products in the {category} category
        | of {category} products | in the {category} category
        | for products in the {category} category | with products of the {category} category
        | of things from the {category} category || for products from the {category} category
        """,
            """
        were for {category} products | contain {category} products
        | were for things from {category} | had {category} products in them
        || include {category} products
        """,
        ),
        condition(
            "o.date LIKE '{year}%'",
            """
        in {year} | from {year} | placed in {year} | made in {year} | of {year}
        | made during {year} | dated {year} | that came in {year} || during {year}
        """,
            "were placed in {year} | were made in {year} | came in {year} || arrived in {year}",
        ),
        condition(
            "o.date LIKE '{month_iso}%'",
            """
        in {month} | from {month} | placed in {month} | of {month} | made during {month}
        | dated {month} | that came in {month} || during {month}
            """,
            """
        were placed in {month} | were made in {month} | came in {month} || arrived in {month}
            """,
        ),
        condition(
            "o.date > '{date_iso}'",
            """
        after {date} | placed after {date} | later than {date} | made later than {date}
        | since {date} | that came after {date} | received after {date} || made after {date}
            """,
            """
        were placed after {date} | came after {date} | came in after {date}
        | were received after {date} || were made after {date}
            """,
        ),
        condition(
            "o.date < '{date_iso}'",
            """
        before {date} | placed before {date} | earlier than {date} | made earlier than {date}
        | that came before {date} | received before {date} | up to {date}
        || made before {date}
            """,
            """
        were placed before {date} | came before {date} | came in before {date}
        | were received before {date} || were made before {date}
            """,
        ),
        condition(
            "o.quantity > {n}",
            """
        of more than {n} units | for more than {n} pieces | with a quantity above {n}
        | with more than {n} items | over {n} units | with a quantity over {n}
        | whose quantity is more than {n} | with quantities above {n} | of over {n} pieces
        || with a quantity of more than {n}
        """,
            """
        had more than {n} units | were for more than {n} pieces | have a quantity over {n}
        | had over {n} pieces || have a quantity above {n}
            """,
        ),
        condition(
            "o.quantity < {n}",
            """
        of fewer than {n} units | for less than {n} pieces | with a quantity below {n}
        | with fewer than {n} items | under {n} units | with a quantity under {n}
        | whose quantity is less than {n} | with quantities below {n} | of under {n} pieces
        || with a quantity of less than {n}
        """,
            """
        had fewer than {n} units | were for less than {n} pieces | have a quantity under {n}
        | had under {n} pieces || have a quantity below {n}
            """,
        ),
    ),
}
