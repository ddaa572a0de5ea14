"""``openltx serve``: the OpenAI Videos API over a durable queue, with the model in a process of its own.

    web process     app (routes) -> store, files            answers requests, holds no weights
    worker process  worker -> making -> Generator           claims jobs, reports each step, writes the videos
    decoder         decoding                                reads what clients upload, under limits
    supervisor      a thread of the web process             starts the worker again when it dies, tidies up

The processes share nothing but the store (a database) and a folder of files. So any of them can be killed at any
moment: what was accepted is still queued, what was running runs again.
"""
