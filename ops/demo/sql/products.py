"""Questions about products. Phrases after a double bar are held out."""

from ops.demo.sql.grammar import question

PRODUCTS = (
    question(
        "p.name",
        """
        List the {things}. | Show all {things}. | Which {those}? | Which {those}?
        | What are the {things}? | List the names of all {things}. | Give me the {things}.
        | Find all {things}. | {things} | Tell me all {things}. | Name the {things}.
        | What are our {things}? || Show me the {things}. | What {those}?
        | Please list all {things}.
        """,
    ),
    question(
        "p.name, p.price",
        """
        List the {things} with their prices. | Show names and prices of all {things}.
        | Give me the {things} and what they cost. | List name and price of the {things}.
        | Show the {things} and the price of each. | Name the {things} and tell me the prices.
        || Show the name and price of each of the {things}.
        """,
    ),
    question(
        "COUNT(*)",
        """
        How many {those}? | How many {those}? | How many {things} are there?
        | Count the {things}. | What is the number of {things}?
        | How many {things} do we sell? | number of {things} | Tell me the number of {things}.
        | I want to know how many {those}. | Please count the {things}.
        | How many {things} have we got? || Tell me how many {those}.
        | Can you count the {things}? | How many {things} do we offer?
        """,
    ),
    question(
        "AVG(p.price)",
        """
        What is the average price of {things}? | How much do {things} cost on average?
        | Average price of all {things} | Give me the mean price of the {things}.
        | What is the mean price of {things}? | What is the price of {things} on average?
        | Tell me the average price of {things}. || What do {things} cost on average?
        """,
    ),
    question(
        "MAX(p.price)",
        """
        What is the highest price of {things}? | What is the maximum price of {things}?
        | Highest price among {things} | Tell me the highest price of all {things}.
        | What do the {things} cost at most? || What is the top price among all {things}?
        """,
    ),
    question(
        "MIN(p.price)",
        """
        What is the lowest price of {things}? | What is the minimum price of {things}?
        | Lowest price among {things} | Tell me the lowest price of all {things}.
        | What do the {things} cost at least?
        || What is the smallest price among all {things}?
        """,
    ),
    question(
        "SUM(p.stock)",
        """
        How many units of {things} are in stock? | What is the total stock of {things}?
        | Total stock of all {things} | Sum up the stock of {things}.
        | How many pieces of {things} do we have in total?
        | How many items of {things} are in stock?
        | How much stock of {things} do we have altogether?
        | How many units of {things} do we hold?
        || How many items of {things} do we have in stock altogether?
        """,
    ),
    question(
        "p.name",
        """
        What is the most expensive of the {things}?
        | Which of the {things} is the most expensive?
        | Name the most expensive of all {things}. | Which of the {things} costs the most?
        | Of the {things}, which has the highest price?
        | Which of all {things} is priced highest?
        | Tell me the one of the {things} that costs most.
        || Which one of the {things} has the highest price?
        """,
        "ORDER BY p.price DESC LIMIT 1",
    ),
    question(
        "p.name",
        """
        What is the cheapest of the {things}? | Which of the {things} is the cheapest?
        | Name the cheapest of all {things}. | Which of the {things} costs the least?
        | Of the {things}, which has the lowest price?
        | Which of all {things} is priced lowest?
        | Tell me the one of the {things} that costs least.
        || Which one of the {things} has the lowest price?
        """,
        "ORDER BY p.price LIMIT 1",
    ),
    question(
        "p.name",
        """
        What is the most expensive product? | Which product is the most expensive?
        | Which product costs the most? | Show the most expensive product.
        | What product is priced highest? | Name the product that costs most.
        || Which product has the highest price?
        """,
        "ORDER BY p.price DESC LIMIT 1",
    ),
    question(
        "p.name",
        """
        What is the cheapest product? | Which product is the cheapest?
        | Which product costs the least? | Show the cheapest product.
        | What product is priced lowest? | Name the product that costs least.
        || Which product has the lowest price?
        """,
        "ORDER BY p.price LIMIT 1",
    ),
    question(
        "p.name",
        """
        What is the most expensive {category} product?
        | Which {category} product costs the most?
        | Which {category} product has the highest price?
        | Show the most expensive of the {category} products.
        | Which of our {category} products is priced highest?
        || Name the {category} product with the highest price.
        """,
        "ORDER BY p.price DESC LIMIT 1",
        where="p.category = '{category}'",
    ),
    question(
        "p.name",
        """
        What is the cheapest {category} product? | Which {category} product costs the least?
        | Which {category} product has the lowest price?
        | Show the cheapest of the {category} products.
        | Which of our {category} products is priced lowest?
        || Name the {category} product with the lowest price.
        """,
        "ORDER BY p.price LIMIT 1",
        where="p.category = '{category}'",
    ),
    question(
        "p.name",
        """
        List all {category} products. | Which {category} products do we sell?
        | Show the {category} products. | What are our {category} products?
        | Which {category} products are there? | Name the {category} products.
        || What {category} products are there?
        """,
        where="p.category = '{category}'",
    ),
    question(
        "COUNT(*)",
        """
        How many {category} products are there? | How many {category} products do we sell?
        | Count the {category} products. | What is the number of {category} products?
        | Tell me how many {category} products there are.
        || Give me the number of {category} products.
        """,
        where="p.category = '{category}'",
    ),
    question(
        "AVG(p.price)",
        """
        What is the average price of {category} products?
        | How much does a {category} product cost on average?
        | What is the mean price of {category} products?
        | What is the price of {category} products on average?
        || What do {category} products cost on average?
        """,
        where="p.category = '{category}'",
    ),
    question(
        "p.name",
        """
        What are the {few} most expensive {things}?
        | List the {few} most expensive {things}. | Top {few} {things} by price
        | Show the {few} {things} with the highest prices.
        | Which {few} {things} cost the most? | I want the {few} most expensive {things}.
        | Name the {few} {things} that cost most.
        || Give me the {few} most expensive {things}.
        """,
        "ORDER BY p.price DESC LIMIT {few_n}",
    ),
    question(
        "p.name",
        """
        What are the {few} cheapest {things}? | List the {few} cheapest {things}.
        | Show the {few} {things} with the lowest prices.
        | Which {few} {things} cost the least? | I want the {few} cheapest {things}.
        | Name the {few} {things} that cost least. || Give me the {few} cheapest {things}.
        """,
        "ORDER BY p.price LIMIT {few_n}",
    ),
    question(
        "p.name",
        """
        List the {things} sorted by price.
        | Show the {things} from cheapest to most expensive. | {things}, ordered by price
        | List the {things} by price, lowest first. | Order the {things} by price.
        | Show all {things} sorted by price. | Put the {things} in order of price.
        || Sort the {things} by price.
        """,
        "ORDER BY p.price",
    ),
    question(
        "p.name",
        """
        List the {things} sorted by price, highest first.
        | Show the {things} from most expensive to cheapest.
        | {things}, ordered by price descending
        | Order the {things} by price, descending.
        | Show all {things} in descending order of price.
        | Put the {things} in descending order of price.
        || Sort the {things} by price in descending order.
        """,
        "ORDER BY p.price DESC",
    ),
    question(
        "p.price",
        """
        What does the {product} cost? | How much is the {product}?
        | What is the price of the {product}? | Price of the {product}
        | How much does a {product} cost? | At what price do we sell the {product}?
        | Show the price of the {product}. || Tell me the price of the {product}.
        """,
        where="p.name = '{product}'",
    ),
    question(
        "p.stock",
        """
        How many units of the {product} are in stock? | What is the stock of the {product}?
        | How many of the {product} are left? | What stock do we have of the {product}?
        | How many pieces of the {product} are left?
        | How many units of the {product} do we have?
        || How many pieces of the {product} do we have in stock?
        """,
        where="p.name = '{product}'",
    ),
    question(
        "p.category",
        """
        Which category is the {product} in? | What is the category of the {product}?
        | What category does the {product} belong to?
        | In which category is the {product}? | In what category can I find the {product}?
        | Under which category is the {product} sold?
        || In which category do we sell the {product}?
        """,
        where="p.name = '{product}'",
    ),
    question(
        "p.category, COUNT(*)",
        """
        How many products are in each category? | Count the products per category.
        | Number of products by category. | How many products does each category have?
        | Show the number of products for every category.
        || Show how many products each category has.
        """,
        "GROUP BY p.category",
    ),
    question(
        "p.category, AVG(p.price)",
        """
        What is the average price per category?
        | Show the average price of the products in each category.
        | Average price by category. | How much do products cost on average per category?
        | For each category, what is the average price?
        || What do products cost on average in each category?
        """,
        "GROUP BY p.category",
    ),
    question(
        "p.category, SUM(p.stock)",
        """
        What is the total stock per category?
        | How many units are in stock in each category? | Total stock by category.
        | Show how much stock each category has. | For each category, what is the total stock?
        || Show the total stock for every category.
        """,
        "GROUP BY p.category",
    ),
    question(
        "p.category, MAX(p.price)",
        """
        What is the highest price in each category? | Show the maximum price per category.
        | Highest price by category. | For each category, what is the highest price?
        | List the categories and the highest price in each.
        | Show each category and its top price. || List every category with its highest price.
        """,
        "GROUP BY p.category",
    ),
    question(
        "p.category, MIN(p.price)",
        """
        What is the lowest price in each category? | Show the minimum price per category.
        | Lowest price by category. | For each category, what is the lowest price?
        | List the categories and the lowest price in each.
        | Show each category and its smallest price.
        || List every category with its lowest price.
        """,
        "GROUP BY p.category",
    ),
    question(
        "p.category",
        """
        Which categories have more than {few} products?
        | List the categories with more than {few} products.
        | In which categories do we have over {few} products?
        | Which categories contain more than {few} products?
        || Show categories that have more than {few} products.
        """,
        "GROUP BY p.category HAVING COUNT(*) > {few_n}",
    ),
    question(
        "p.category",
        """
        Which category has the most products? | Name the category with the most products.
        | In which category do we sell the most products?
        | What is the category with the most products?
        | Which category has the largest choice of products?
        || What category has the largest number of products?
        """,
        "GROUP BY p.category ORDER BY COUNT(*) DESC LIMIT 1",
    ),
    question(
        "DISTINCT p.category",
        """
        Which product categories are there? | List all categories.
        | Show the different categories. | What categories do we sell?
        | Name all product categories. | Into which categories do our products fall?
        || What are our product categories?
        """,
    ),
    question(
        "p.name",
        """
        Which {things} were never ordered? | List {things} without any orders.
        | Show the {things} that nobody has ordered. | Find {things} with no orders.
        | Which {things} has no one ordered? | What {things} are without orders?
        || Which {things} has nobody ordered yet?
        """,
        where="p.id NOT IN (SELECT product_id FROM orders)",
    ),
)
