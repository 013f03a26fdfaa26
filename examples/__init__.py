"""Programs written as a user would write them."""
