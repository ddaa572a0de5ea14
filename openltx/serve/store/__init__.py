"""What a server remembers: keys, uploads, jobs and their events, workers. SQLAlchemy over SQLite, or another database.

``tables`` says what is stored, ``database`` how it is opened and brought up to date; each other module holds the
transactions on one kind of record. Every change of a job's state is one transaction, so a kill at any moment leaves the
state before it or the state after it.
"""
