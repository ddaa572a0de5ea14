"""The survey of the paper's section 4.2: people compare two videos of one prompt, without knowing whose they are.

study.py      a study on disk: its models, prompts and blinded clips; who is asked what
answers.py    what was answered, in SQLite
app.py        the page on which raters answer, and the server behind it
analysis.py   win rates, ties, the pairwise matrix, Bradley-Terry scores, two groups of raters
picture.py    the matrix as a picture (figure 15)
"""
