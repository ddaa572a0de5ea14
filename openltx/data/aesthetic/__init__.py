"""The aesthetic ranker (paper section 3): people say which of two clips is better, and a network learns the order.

features.py   what a frozen classifier sees in a clip: features for the ranker, labels for the pairs
pairs.py      which two clips to ask about: alike in content, and of an order that is not yet known
ratings.py    the answers, in SQLite
ranker.py     the Siamese network: two clips, one scorer; its accuracy on pairs that it has not learned from
page.py       the page on which a person answers
"""
