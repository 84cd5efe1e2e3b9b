"""interposer: the policy enforcement point between AI agents and the skills they act through.

An agent's *call* arrives at a *transport*, becomes an *invocation* of a *skill* by a *principal*, is *decided* by
policy, perhaps *approved* by a human, put on *record* as an *intent*, carried to an *upstream*, and its *outcome*
goes back *masked*. Read `model.py`, `ports.py` and `broker.py` first.
"""

__version__ = "0.1.0"
