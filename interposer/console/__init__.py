"""The web console: where people see the calls that wait for them, and answer.

It runs inside the broker, on a listener of its own, and holds no state that matters: questions, votes and grants are
the desk's, and the desk judges every vote. What the console adds: who is logged in, that they have had the whole call
before their eyes, and that what reaches the desk was sent by a page of ours.
"""
