"""The pages of docs/reference, each made from the tables that the program itself uses."""
