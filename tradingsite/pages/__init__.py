"""Pages of the admin that need more than one floor: a trade with its features, predictions and bars; a model with its
figures. Each module puts its page in the place of the plain one that the table's own app registers."""
