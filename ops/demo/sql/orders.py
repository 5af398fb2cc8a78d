"""Questions about orders. Phrases after a double bar are held out."""

from ops.demo.sql.grammar import question

REVENUE = "SUM(o.quantity * p.price)"
ORDERS = (
    question(
        "o.*",
        """
        List the {things}. | Show all {things}. | Which {those}? | Give me the {things}.
        | Find all {things}. | {things} | Tell me all {things}. | I want to see the {things}.
        || Show me the {things}. | Please list all {things}.
        """,
    ),
    question(
        "COUNT(*)",
        """
        How many {those}? | How many {those}? | How many {things} are there?
        | Count the {things}. | What is the number of {things}?
        | How many {things} do we have? | number of {things} | Tell me the number of {things}.
        | I want to know how many {those}. | Please count the {things}.
        | How many {things} did we have? || Tell me how many {those}.
        | Can you count the {things}? | How many {things} were there?
        """,
    ),
    question(
        "SUM(o.quantity)",
        """
        What is the total quantity of {things}? | Total quantity of all {things}
        | How many units were sold in {things}? | Sum up the quantities of the {things}.
        | How many units are there in all {things}?
        | How many units do {things} make in total?
        | What do the quantities of {things} add up to? | How many pieces were in {things}?
        || How many units do the {things} add up to?
        """,
    ),
    question(
        "AVG(o.quantity)",
        """
        What is the average quantity of {things}? | Average quantity of all {things}
        | How many units do {things} have on average?
        | What is the mean quantity of {things}?
        | What is the quantity of {things} on average? | How large are {things} on average?
        || What quantity do {things} have on average?
        """,
    ),
    question(
        "MAX(o.quantity)",
        """
        What is the largest quantity of {things}? | Highest quantity among {things}
        | What is the maximum quantity of {things}?
        | What is the top quantity of {things}? | How large was the largest of the {things}?
        || What is the biggest quantity among all {things}?
        """,
    ),
    question(
        REVENUE,
        """
        What is the total revenue from {things}? | How much revenue did {things} bring?
        | Total revenue of all {things} | What is the total value of {things}?
        | How much money did we make with {things}?
        | How much did we earn from {things}? | What revenue did {things} bring?
        | What did {things} earn us? | How much money came from {things}?
        || What revenue did we earn from {things}? | How much did we earn with {things}?
        """,
    ),
    question(
        "o.*",
        """
        What are the {few} latest {things}? | Show the last {few} {things}.
        | List the {few} most recent {things}. | Give me the {few} latest {things}.
        | I want the {few} most recent {things}. | Which are the {few} newest {things}?
        || Give me the {few} newest {things}.
        """,
        "ORDER BY o.date DESC LIMIT {few_n}",
    ),
    question(
        "o.*",
        """
        List the {things} sorted by date. | Show the {things} from oldest to newest.
        | {things}, ordered by date | Order the {things} by date.
        | Show all {things} sorted by date. | Put the {things} in order of date.
        || Sort the {things} by date.
        """,
        "ORDER BY o.date",
    ),
    question(
        "MAX(o.date)",
        """
        When was the latest of the {things}? | What is the date of the last of all {things}?
        | When did we get the most recent of the {things}?
        | When did we get the last of the {things}?
        | When was the most recent of the {things} made? | Date of the latest of the {things}
        || When did the last of the {things} come in?
        """,
    ),
    question(
        "MIN(o.date)",
        """
        When was the first of the {things}? | What is the date of the first of all {things}?
        | When did we get the earliest of the {things}?
        | When did we get the first of the {things}?
        | When was the earliest of the {things} made? | Date of the earliest of the {things}
        || When did the first of the {things} come in?
        """,
    ),
    question(
        "MAX(o.date)",
        """
        When did {name} last order something? | When did {name} place their last order?
        | Date of the last order of {name} | When was the last order of {name}?
        | What is the date of the latest order from {name}?
        || When was the latest order by {name}?
        """,
        where="c.name = '{name}'",
    ),
    question(
        "c.name, COUNT(*)",
        """
        How many orders did each customer place? | Count the {things} per customer.
        | Number of {things} by customer. | Show the number of {things} for every customer.
        | How many {things} does each customer have?
        | For each customer, how many {things} are there?
        | Show each customer with the number of {things}.
        || How many {things} are there for each customer?
        """,
        "GROUP BY c.name",
    ),
    question(
        "c.city, COUNT(*)",
        """
        How many {things} are there per city? | Count the {things} by city.
        | Number of {things} for each city. | How many {things} came from each city?
        | How many {things} does each city have? | For each city, how many {things} are there?
        | Show each city with the number of {things}. || Show how many {things} each city has.
        """,
        "GROUP BY c.city",
    ),
    question(
        "c.country, COUNT(*)",
        """
        How many {things} are there per country? | Count the {things} by country.
        | Number of {things} for each country. | How many {things} came from each country?
        | How many {things} does each country have?
        | For each country, how many {things} are there?
        | Show each country with the number of {things}.
        || Show how many {things} each country has.
        """,
        "GROUP BY c.country",
    ),
    question(
        "p.name, SUM(o.quantity)",
        """
        How many units of each product were sold? | Total quantity ordered per product.
        | Show the units sold by product. | How often was each product sold in units?
        | How many units of every product did we sell?
        | What is the quantity sold of each product?
        | For each product, how many units were sold?
        || What quantity of each product has been sold?
        """,
        "GROUP BY p.name",
    ),
    question(
        f"c.name, {REVENUE}",
        """
        How much did each customer spend? | Total spending per customer.
        | Revenue by customer. | Show the revenue for every customer.
        | What did each customer spend? | How much has every customer spent?
        | For each customer, what is the total spending?
        || What has each customer spent in total?
        """,
        "GROUP BY c.name",
    ),
    question(
        f"p.category, {REVENUE}",
        """
        What is the revenue per category? | Total revenue by category.
        | Show the revenue for every category. | How much revenue did each category bring?
        | How much did we earn per category? | What did each category earn us?
        | For each category, what is the revenue? || What did we earn in each category?
        """,
        "GROUP BY p.category",
    ),
    question(
        f"c.country, {REVENUE}",
        """
        What is the revenue per country? | Total revenue by country.
        | Show the revenue for every country. | How much revenue did each country bring?
        | How much did we earn per country? | What did each country earn us?
        | For each country, what is the revenue? || What did we earn in each country?
        """,
        "GROUP BY c.country",
    ),
    question(
        "c.name",
        """
        Which customer placed the most orders? | Who has the most orders?
        | Name the customer with the most orders. | Who ordered most often?
        | Which customer has placed the most orders?
        | What customer has the highest number of orders?
        || Which customer has the largest number of orders?
        """,
        "GROUP BY c.name ORDER BY COUNT(*) DESC LIMIT 1",
    ),
    question(
        "c.name",
        """
        Which customer spent the most? | Who is the best customer by revenue?
        | Name the customer who spent the most money.
        | Who has spent the most? | Which customer spent the most money?
        | What customer brought the highest revenue?
        || Which customer has spent the most money?
        """,
        f"GROUP BY c.name ORDER BY {REVENUE} DESC LIMIT 1",
    ),
    question(
        "c.name",
        """
        Who are the {few} customers who spent the most? | Top {few} customers by revenue.
        | List the {few} best customers by revenue.
        | Which {few} customers spent the most money?
        | Name the {few} customers with the highest spending.
        || Show the {few} customers who have spent the most money.
        """,
        f"GROUP BY c.name ORDER BY {REVENUE} DESC LIMIT {{few_n}}",
    ),
    question(
        "p.name",
        """
        What is the best-selling product? | Which product sold the most units?
        | Name the product with the most units sold. | Which product was sold the most?
        | What product sold the most units? || Which product was sold most?
        """,
        "GROUP BY p.name ORDER BY SUM(o.quantity) DESC LIMIT 1",
    ),
    question(
        "p.name",
        """
        What are the {few} best-selling products? | Top {few} products by units sold.
        | List the {few} products with the most units sold.
        | Which {few} products sold the most units?
        | Name the {few} products that were sold the most.
        || Show the {few} products that sold most.
        """,
        "GROUP BY p.name ORDER BY SUM(o.quantity) DESC LIMIT {few_n}",
    ),
    question(
        "p.category",
        """
        Which category brings the most revenue?
        | Name the category with the highest revenue.
        | In which category do we earn the most? | Which category has the highest revenue?
        | What category brought the most revenue? | Which category earns us the most?
        || What category has the largest revenue?
        """,
        f"GROUP BY p.category ORDER BY {REVENUE} DESC LIMIT 1",
    ),
    question(
        "c.name",
        """
        Which customers have more than {few} orders? | Who placed more than {few} orders?
        | List the customers with more than {few} orders.
        | Which customers ordered more than {few} times?
        | Find customers with over {few} orders. | Who has ordered more than {few} times?
        || Show customers who have ordered more than {few} times.
        """,
        "GROUP BY c.name HAVING COUNT(*) > {few_n}",
    ),
    question(
        "DISTINCT p.name",
        """
        Which products did {name} order? | What did {name} order? | What has {name} bought?
        | List the products that {name} ordered. | Products ordered by {name}
        | Which products did {name} buy? | Name the products that {name} has ordered.
        || Which products has {name} bought?
        """,
        where="c.name = '{name}'",
    ),
    question(
        "DISTINCT p.category",
        """
        From which categories did {name} order? | Which categories has {name} bought from?
        | In which categories did {name} buy something?
        | What categories has {name} ordered from? || In which categories has {name} ordered?
        """,
        where="c.name = '{name}'",
    ),
    question(
        "COUNT(*)",
        """
        How many orders has {name} placed? | How often did {name} order?
        | How many times did {name} order something? | How many orders did {name} place?
        | What is the number of orders of {name}? || How many orders does {name} have?
        """,
        where="c.name = '{name}'",
    ),
    question(
        REVENUE,
        """
        How much has {name} spent? | How much money did {name} spend in total?
        | What is the total that {name} spent? | Total spending of {name}
        | What did {name} spend? | How much has {name} spent in total?
        || What has {name} spent altogether?
        """,
        where="c.name = '{name}'",
    ),
    question(
        "DISTINCT c.name",
        """
        Who ordered the {product}? | Which customers ordered the {product}?
        | Who bought a {product}? | List the customers who ordered the {product}.
        | Which customers have bought the {product}? | Who has bought the {product}?
        | Show the customers who have the {product}. || Who has ordered the {product}?
        """,
        where="p.name = '{product}'",
    ),
    question(
        "DISTINCT c.name",
        """
        Who ordered {category} products? | Which customers bought {category} products?
        | List the customers who ordered {category} products.
        | Who bought something from {category}?
        | Who has ordered products from the {category} category?
        || Who has bought something from the {category} category?
        """,
        where="p.category = '{category}'",
    ),
    question(
        "DISTINCT c.name",
        """
        Which customers from {city} ordered the {product}?
        | Who in {city} bought the {product}?
        | List the customers from {city} who ordered the {product}.
        | Which customers in {city} have bought the {product}?
        | Show customers in {city} who ordered the {product}.
        | Customers from {city} who bought the {product}
        || List customers in {city} who have bought the {product}.
        """,
        where="c.city = '{city}' AND p.name = '{product}'",
    ),
    question(
        "DISTINCT c.name",
        """
        Which customers ordered something in {year}? | Who placed an order in {year}?
        | List the customers who ordered in {year}. | Who bought something in {year}?
        | Which customers have bought something during {year}?
        || Who has bought something in {year}?
        """,
        where="o.date LIKE '{year}%'",
    ),
    question(
        "DISTINCT p.name",
        """
        Which products were ordered in {year}? | List the products sold in {year}.
        | What was ordered in {year}? | Which products were bought in {year}?
        | Which products did we sell in {year}? || Which products have been bought in {year}?
        """,
        where="o.date LIKE '{year}%'",
    ),
    question(
        "DISTINCT p.name",
        """
        Which products were ordered by customers in {city}?
        | What did customers from {city} order?
        | List the products sold to customers in {city}.
        | Which products did customers from {city} buy?
        | Which products have customers in {city} ordered?
        | What have people from {city} bought?
        || Which products have customers from {city} bought?
        """,
        where="c.city = '{city}'",
    ),
    question(
        "SUM(o.quantity)",
        """
        How many units of the {product} were sold?
        | How many units of the {product} were ordered? | How many {products} did we sell?
        | Total quantity ordered of the {product}
        | How many pieces of the {product} were sold?
        | How many units of the {product} have we sold?
        | How many of the {product} were ordered in total?
        || How many pieces of the {product} have been ordered?
        """,
        where="p.name = '{product}'",
    ),
    question(
        REVENUE,
        """
        What is the revenue of the {product}? | How much revenue did the {product} bring?
        | How much did we earn with the {product}? | What revenue did the {product} bring?
        | How much did the {product} earn us? || What revenue has the {product} made?
        """,
        where="p.name = '{product}'",
    ),
)
